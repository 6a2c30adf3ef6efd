"""`pamdp read`: a sheet on which blind readers grade the replies of a run's policies."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer

from pamdp.cli.options import KEY, SHEET, Json, Plugins, show
from pamdp.config import Config

app = typer.Typer()


@app.command()
def read(
    *,
    run: Annotated[Path, typer.Argument(help="Run directory of `train offline`.")],
    states: Annotated[int | None, typer.Option(help="How many states are read; all of them without.")] = None,
    methods: Annotated[
        str, typer.Option(help="Who replies, comma-separated; each is compared with those before it.")
    ] = "Vanilla,BC,PAMDP",
    out: Annotated[Path | None, typer.Option(help="Folder for readers; RUN/reading without.")] = None,
    key: Annotated[Path | None, typer.Option(help="Who wrote what, not for readers; RUN/reading-key.json.")] = None,
    plugin: Plugins,
    as_json: Json = False,
) -> None:
    """Write replies to a run's test users on a sheet that hides who wrote which; `pamdp eval --readings` takes answers.

    Example: `pamdp read runs/rl --states 30`
    """
    from pamdp.evaluation.offline_eval import write_replies
    from pamdp.evaluation.reading_sheet import check_sheet, write_sheet
    from pamdp.models.embedded import load_backbone
    from pamdp.preflight import require_data, require_finished
    from pamdp.runs import Run
    from pamdp.train.policy_metadata import require_unseen
    from pamdp.workflows import backbones, policies_of, split_of

    names = [name.strip() for name in methods.split(",")]
    folder, key_file = out or run / SHEET, key or run / KEY
    done = Run(run)
    settings = done.config(Config)
    require_finished(done)
    split = split_of(settings)
    require_data(done, split)
    require_unseen(split.test, [path for path in (run / "policy", run / "trained") if path.is_dir()])
    bare, own = backbones(settings, load_backbone)
    policies = policies_of(run, own, bare)
    check_sheet(folder, key_file, names, policies)
    replies = {name: write_replies(policies[name], split.test, settings.rl, what=name) for name in names}
    pairs = [(method, baseline) for baseline, method in combinations(names, 2)]
    made = write_sheet(folder, key_file, split.test, replies, pairs, states=states, seed=settings.seed)
    found = {"sheet": str(folder), "key": str(key_file), "states": len(made.states)}
    show(as_json, found, f"{len(made.states)} states to read: {folder / 'sheet.html'}; not for readers: {key_file}")
