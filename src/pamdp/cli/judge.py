"""`pamdp judge eval|collect|train`: how good judges are, and training those of the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from pamdp.cli.options import From, Json, Overrides, Plugins, SkipBad, Sources, show
from pamdp.config import Config
from pamdp.data import load_pairs, load_sample, load_sample_pairs
from pamdp.data.bundled import PairSplit, ReadingSplit, load_sample_readings
from pamdp.data.jsonl import write_lines
from pamdp.data.readings import ReadState, decided_pairs, load_read_states, read_by
from pamdp.errors import ConfigError
from pamdp.files import require_replaceable
from pamdp.progress import Progress
from pamdp.settings import load

app = typer.Typer(name="judge", no_args_is_help=True, help="Judges: how good they are, and training the embedded ones.")
SAMPLE_PAIRS: dict[str, PairSplit] = {"sample": "test", "sample-valid": "valid", "sample-fresh": "fresh"}
"""Names of the sample's pairs that judges are measured on."""


@app.command("eval")
def evaluate(
    *,
    pairs: Annotated[
        str | None,
        typer.Option(help="JSON lines of labelled pairs, or of the sample: sample, sample-valid, sample-fresh."),
    ] = None,
    readings: Annotated[
        str | None,
        typer.Option(
            help="What blind readers decided instead: JSON lines, or of the sample: sample (to learn from), rl, rl-2, "
            "valid, valid-2, test, table2."
        ),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Which judge, by name, in place of the setting judge.model.")
    ] = None,
    skip_bad: SkipBad = False,
    config: Sources,
    as_json: Json = False,
    plugin: Plugins,
    overrides: Overrides,
) -> None:
    """Agreement of a judge with blind readers or with labelled pairs, per kind, with its controls.

    Who is measured is the setting `judge`, the default reward unless named; `model.name` is the backbone beside which
    it judges.

    Example: `pamdp judge eval --judge signals --readings valid`
    """
    from pamdp.evaluation.judge_eval import evaluate_judge
    from pamdp.judges import graders
    from pamdp.launcher_config import require_local
    from pamdp.models.embedded import load_backbone
    from pamdp.train.env_factory import make_rewards
    from pamdp.workflows import tell_of_data

    settings = load(Config, config, overrides)
    require_local(settings.launcher, "judge eval")
    if judge is not None:
        settings = settings.model_copy(update={"judge": graders.named(settings.judge, judge)})

    if (pairs is None) == (readings is None):
        raise ConfigError("name either --readings or --pairs: what the judge is held against")
    skipped, users, about = 0, None, ""
    if readings is not None:
        states = _read_states(readings)
        asked_of = decided_pairs(states)
        users = [state.user_id for state in states for _ in decided_pairs([state])]
        about = read_by(states)
    elif (named := SAMPLE_PAIRS.get(pairs or "")) is not None:
        asked_of = list(load_sample_pairs(named).pairs)
    else:
        found = load_pairs(pairs or "", skip_bad=skip_bad)
        asked_of, skipped = list(found.pairs), len(found.skipped)
        tell_of_data(0, found.repaired, asked_of)  # the result has what was skipped
    asked, ledger = make_rewards(settings, lambda: load_backbone(settings.model))
    with Progress("judging", 3 * len(asked_of)) as bar:
        report = evaluate_judge(asked, asked_of, bar.advance, users)
    more = {"skipped": skipped, "read_by": about, "fingerprint": asked.fingerprint, "costs": ledger.to_json()}
    show(as_json, report.to_json() | more, report.table(), about)


SAMPLE_READINGS: dict[str, ReadingSplit] = {"sample": "train", **{name: name for name in get_args(ReadingSplit)}}
"""Names of the sample's readings; `sample` are those to learn from."""


def _read_states(name: str) -> list[ReadState]:
    named = SAMPLE_READINGS.get(name)
    return load_read_states(name) if named is None else load_sample_readings(named)


@app.command()
def collect(
    *,
    verdicts: Annotated[list[Path], typer.Argument(help="Files of verdicts, JSON lines, by readers of one sheet.")],
    sheet: Annotated[Path, typer.Option(help="Folder that readers were given.")],
    key: Annotated[Path, typer.Option(help="Who wrote what.")],
    out: Annotated[Path, typer.Option(help="File for the readings, JSON lines.")],
    as_json: Json = False,
    plugin: Plugins,
) -> None:
    """Make of a sheet, its key and readers' verdicts what judges are trained on and held against.

    Example: `pamdp judge collect ann.jsonl --sheet runs/rl/reading --key runs/rl/reading-key.json --out readings.jsonl`
    """
    from pamdp.evaluation.readings import read_states

    states = read_states(sheet, key, verdicts, {})
    n = write_lines(out, [state.model_dump(mode="json") for state in states])
    show(as_json, {"out": str(out), "states": n}, f"{n} states in {out}; next: pamdp judge train --readings {out}")


@app.command()
def train(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the weights.")],
    readings: Annotated[
        list[str],
        typer.Option(
            help="Fit `reward-model` and `signals` on these instead: JSON lines, `sample` or `rl`; repeat.",
            default_factory=list,
            show_default=False,
        ),
    ],
    source: From = "shipped",
    epochs: Annotated[int | None, typer.Option(help="Passes of the reward model (3), or of likelihood (2).")] = None,
    as_json: Json = False,
    plugin: Plugins,
) -> None:
    """Train the embedded judges on the sample's training users (about an hour on two cores), or on readings.

    They belong to the backbone of the cloned policy that --from names; `judge.weights` then names their folder.

    Example: `pamdp judge train --out judges/ --readings sample`
    """
    if readings:
        _train_from_readings(out, readings, source, epochs or 3, as_json)
        return
    from pamdp.judges.embedded import FILES, save_judges
    from pamdp.judges.training import train_judges
    from pamdp.models.embedded import load_backbone
    from pamdp.models.policy import Policy
    from pamdp.train.factory import load_policy
    from pamdp.train.init_from import placed, policy_folder
    from pamdp.train.offline import drawn_replies
    from pamdp.train.policy_metadata import read_metadata
    from pamdp.workflows import backbones

    require_replaceable(out, FILES)  # an hour's work is not begun where its end would delete something
    start, dialogues = policy_folder(source), load_sample("train").dialogues
    stored = read_metadata(start).config
    stored = stored.model_copy(update={"model": placed(stored.model)})
    backbone, own = backbones(stored, load_backbone)
    cloned = load_policy(start, own)
    models = [
        drawn_replies(cloned, dialogues, Config()),
        drawn_replies(Policy(backbone, readout=cloned.readout), dialogues, load(Config, (), ["rl.samples=1"])),
    ]
    match, likelihood, sense, temperature = train_judges(
        backbone, load_sample_pairs("train").pairs, dialogues, models, epochs=epochs or 2
    )
    save_judges(out, match, likelihood, sense, temperature)
    show(as_json, {"out": str(out), "temperature": temperature}, f"judges written to {out}")


def _train_from_readings(out: Path, readings: list[str], source: str, epochs: int, as_json: bool) -> None:
    from pamdp.judges.from_readings import FILES, save, train_from_readings
    from pamdp.models.embedded import load_backbone
    from pamdp.train.factory import load_policy
    from pamdp.train.init_from import placed, policy_folder
    from pamdp.train.policy_metadata import read_metadata

    require_replaceable(out, FILES)
    states = [state for name in readings for state in _read_states(name)]
    start = policy_folder(source)
    config = read_metadata(start).config
    backbone = load_backbone(placed(config.model))
    # Judges are used on the bare backbone: a clone that changed all of it is none that they can ask.
    cloned = load_policy(start, backbone).adapter if config.clone.backbone == "lora" else None
    clone = None if cloned is None else cloned.name
    model, signals, temperature = train_from_readings(
        backbone, states, load_sample_readings("valid"), epochs, clone=clone
    )
    save(out, model, signals, temperature)
    found = {"out": str(out), "states": len(states), "temperature": temperature, "read_by": read_by(states)}
    show(as_json, found, f"judges fitted on {len(states)} states, {read_by(states)}, written to {out}")
