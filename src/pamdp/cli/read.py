"""`pamdp read`: a sheet on which blind readers grade the replies of a run's policies."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer

from pamdp.cli.options import KEY, SHEET, Json, Plugins, show
from pamdp.config import Config
from pamdp.errors import ConfigError

app = typer.Typer()
OTHER = "Other action"
"""The method that is PAMDP under the action of another test user: does it matter whose action it is?"""


@app.command()
def read(
    *,
    run: Annotated[Path, typer.Argument(help="Run directory of `train offline`.")],
    states: Annotated[int | None, typer.Option(help="How many states are read; all of them without.")] = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Who replies, comma-separated; each is compared with those before it. `Other action`: PAMDP under "
            "another user's action; `Permuted`: what --permuted names."
        ),
    ] = "Vanilla,BC,PAMDP",
    permuted: Annotated[
        Path | None, typer.Option(help="The control's run, with rl.permute=true, for the method `Permuted`.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for readers; RUN/reading without.")] = None,
    key: Annotated[Path | None, typer.Option(help="Who wrote what, not for readers; RUN/reading-key.json.")] = None,
    plugin: Plugins,
    as_json: Json = False,
) -> None:
    """Write replies to a run's test users on a sheet that hides who wrote which; `pamdp eval --readings` takes answers.

    Example: `pamdp read runs/rl --states 30`
    """
    from pamdp.evaluation.offline_eval import others_actions, write_replies
    from pamdp.evaluation.reading_sheet import check_sheet, write_sheet
    from pamdp.models.embedded import load_backbone
    from pamdp.models.recorded import mean_actions
    from pamdp.preflight import evaluated_split
    from pamdp.runs import Run
    from pamdp.train.init_from import placed
    from pamdp.workflows import backbones, policies_of

    names = [name.strip() for name in methods.split(",")]
    folder, key_file = out or run / SHEET, key or run / KEY
    done = Run(run)
    settings = done.config(Config)
    settings = settings.model_copy(update={"model": placed(settings.model)})
    split = evaluated_split(done, settings, permuted)
    bare, own = backbones(settings, load_backbone)
    policies = policies_of(run, own, bare, permuted)
    check_sheet(folder, key_file, names, [*policies, *([OTHER] if "PAMDP" in policies else [])])
    replies = {}
    for name in names:
        policy, actions = policies["PAMDP" if name == OTHER else name], None
        if name == OTHER and (actions := others_actions(split.test, mean_actions(policy, split.test))) is None:
            raise ConfigError(f"{OTHER}: all test dialogues are one user's, so there is no other user's action")
        replies[name] = write_replies(policy, split.test, settings.rl, actions, name)
    pairs = [(method, baseline) for baseline, method in combinations(names, 2)]
    made = write_sheet(folder, key_file, split.test, replies, pairs, states=states, seed=settings.seed)
    found = {"sheet": str(folder), "key": str(key_file), "states": len(made.states)}
    show(as_json, found, f"{len(made.states)} states to read: {folder / 'sheet.html'}; not for readers: {key_file}")
