"""`pamdp judge eval|train`: how good judges are, and training the embedded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pamdp.cli.options import Json, Plugins, SkipBad, show
from pamdp.config import Config
from pamdp.data import load_pairs, load_sample, load_sample_pairs
from pamdp.data.bundled import PairSplit
from pamdp.files import require_replaceable
from pamdp.progress import Progress
from pamdp.registry import JUDGES
from pamdp.settings import load

app = typer.Typer(name="judge", no_args_is_help=True, help="Judges: how good they are, and training the embedded ones.")
SAMPLE_PAIRS: dict[str, PairSplit] = {"sample": "test", "sample-valid": "valid", "sample-fresh": "fresh"}
"""Names of the sample's pairs that judges are measured on."""


@app.command("eval")
def evaluate(
    *,
    pairs: Annotated[
        str, typer.Option(help="JSON lines of labelled pairs, or of the sample: sample, sample-valid, sample-fresh.")
    ],
    judge: Annotated[str, typer.Option(help="Which judge, by name.")] = "embedded",
    skip_bad: SkipBad = False,
    as_json: Json = False,
    plugin: Plugins,
) -> None:
    """Agreement of a judge with labelled pairs, per kind, with its controls.

    Example: `pamdp judge eval --pairs sample`
    """
    from pamdp.evaluation.judge_eval import evaluate_judge
    from pamdp.models.embedded import load_backbone

    named = SAMPLE_PAIRS.get(pairs)
    found = load_pairs(pairs, skip_bad=skip_bad) if named is None else load_sample_pairs(named)
    asked = JUDGES[judge](load_backbone)
    with Progress("judging", 3 * len(found.pairs)) as bar:
        report = evaluate_judge(asked, found.pairs, bar.advance)
    show(as_json, report.to_json() | {"skipped": len(found.skipped)}, report.table())


@app.command()
def train(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the weights.")],
    epochs: Annotated[int, typer.Option(help="Passes of the likelihood judge over its pairs.")] = 2,
    as_json: Json = False,
    plugin: Plugins,
) -> None:
    """Train the embedded judges on the sample's training users (about an hour on two cores).

    Example: `pamdp judge train --out judges/`
    """
    from pamdp.judges.embedded import FILES, save_judges
    from pamdp.judges.training import train_judges
    from pamdp.models.embedded import load_backbone
    from pamdp.models.policy import Policy
    from pamdp.train.factory import load_policy, shipped
    from pamdp.train.offline import drawn_replies

    require_replaceable(out, FILES)  # an hour's work is not begun where its end would delete something
    backbone, dialogues = load_backbone(), load_sample("train").dialogues
    cloned = load_policy(shipped(), backbone)
    models = [
        drawn_replies(cloned, dialogues, Config()),
        drawn_replies(Policy(backbone, readout=cloned.readout), dialogues, load(Config, (), ["rl.samples=1"])),
    ]
    match, likelihood, sense, temperature = train_judges(
        backbone, load_sample_pairs("train").pairs, dialogues, models, epochs=epochs
    )
    save_judges(out, match, likelihood, sense, temperature)
    show(as_json, {"out": str(out), "temperature": temperature}, f"judges written to {out}")
