"""`pamdp quickstart`: the main job in one go, with what comes with the package.

Owns the order and the words: a first look, a few updates, evaluation, report. Everything it does is a call that the
other verbs make too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pamdp.cli.options import Json, Overrides, Plugins, Resume, RunDir, show
from pamdp.config import require_hf
from pamdp.types import Dialogue

app = typer.Typer()
SHOWN = 2
"""Test users whose dialogues are shown at the start."""
QUICK_USERS = 6
"""Training users of the few updates."""


@app.command()
def quickstart(
    *,
    run: RunDir = Path("runs/quickstart"),
    resume: Resume = False,
    as_json: Json = False,
    plugin: Plugins,
    overrides: Overrides,
) -> None:
    """See the main job work: talk, learn, evaluate, report; at most ten minutes on two cores.

    Example: `pamdp quickstart`
    """
    from pamdp.evaluation.offline_eval import write_replies
    from pamdp.judges.from_readings import SECOND
    from pamdp.launcher_config import require_local
    from pamdp.models.embedded import load_backbone
    from pamdp.models.policy import Policy
    from pamdp.train.env_factory import make_rewards
    from pamdp.train.factory import shipped
    from pamdp.train.init_from import load_start, settings_from
    from pamdp.train.offline import offline
    from pamdp.train.policy_metadata import require_unseen
    from pamdp.workflows import copy_policy, evaluate_policies, fingerprint_of, open_run, policies_of, split_of

    console = Console(stderr=as_json)
    path = run if resume else free(run)
    start = shipped("trained")
    config = settings_from(start, ["quickstart"], overrides)
    require_local(config.launcher, "quickstart")
    require_hf(config.engine, "quickstart")
    console.print("[bold]1/4[/bold] loading the embedded model, the shipped planner and the judges")
    backbone = load_backbone(config.model)
    judge, ledger = make_rewards(config, lambda: backbone)
    split = split_of(config)
    require_unseen(split.test, [start])
    policy = load_start(start, backbone, config)
    console.print("[bold]2/4[/bold] two users that nobody trained on; their profiles are never shown to the assistant")
    chosen, writers = split.test[:SHOWN], (Policy(backbone, readout=policy.readout), policy)
    for table in side_by_side(chosen, [write_replies(p, chosen, config.rl, what="replies") for p in writers]):
        console.print(table)
    console.print(f"[bold]3/4[/bold] {config.rl.rounds} more round(s) of offline reinforcement learning on a few users")
    with open_run(path, config, fingerprint_of(split, backbone, [judge]), resume) as writing:
        copy_policy(shipped(), path / "policy")
        few = split.train[:: max(1, len(split.train) // QUICK_USERS)]
        offline(policy, few, judge, config, writing, ledger=ledger)
    console.print("[bold]4/4[/bold] every fifth test user, graded by the judge that rewarded and by another")
    some = replace(split, test=split.test[::5])
    result = evaluate_policies(
        policies_of(path, backbone, backbone), some, list(dict.fromkeys((judge.name, SECOND))), config, path,
        controls=("PAMDP",), judge=config.judge,
    )  # fmt: skip
    words = [
        f"{len(some.test)} users give wide intervals; all of them take a while: pamdp eval {path} --controls",
        f"open {path / 'report.html'} in a browser",
        f"then: pamdp chat {path} --show    talk with it",
        "      pamdp train bc --run runs/mine --config plain data.path=YOUR.jsonl    clone on your own dialogues",
        "      pamdp train offline --run runs/rl --from runs/mine    and reinforce",
        "      pamdp judge eval --judge signals --readings valid   how well a judge agrees with readers",
        "      pamdp lab    the theory, in numbers",
    ]
    show(as_json, result.json, *result.shown, *words)


def free(path: Path) -> Path:
    """PATH, or with a number behind it where a run stands there already: a second quickstart is no mistake."""
    names = (path, *(path.with_name(f"{path.name}-{n}") for n in range(2, 1000)))
    return next(name for name in names if not name.exists())


def side_by_side(dialogues: Sequence[Dialogue], replies: Sequence[Mapping[tuple[str, int], str]]) -> list[Table]:
    """Dialogues with Vanilla's and the trained assistant's REPLIES to each of their states."""
    tables = []
    for dialogue in dialogues:
        table = Table(title=Text(f"user {dialogue.user_id}: {dialogue.persona.text}"), show_lines=True)
        for column in ("user", "Vanilla", "trained assistant"):
            table.add_column(column, ratio=1)
        for t, turn in enumerate(dialogue.turns):
            table.add_row(Text(turn.user), *(Text(r[dialogue.id, t]) for r in replies))
        tables.append(table)
    return tables
