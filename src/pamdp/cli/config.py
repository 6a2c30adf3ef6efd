"""`pamdp config`: what every setting is, may be, means and comes from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pamdp import settings
from pamdp.cli.options import Json, Overrides, Plugins, Sources, show
from pamdp.config import Config
from pamdp.errors import RunError

app = typer.Typer()


@app.command()
def config(
    *,
    run: Annotated[str | None, typer.Argument(help="Run directory, whose settings come first.")] = None,
    config: Sources,
    plugin: Plugins,
    as_json: Json = False,
    overrides: Overrides,
) -> None:
    """Every setting with its value, its default, what it may be and means, and where its value comes from.

    Example: `pamdp config --config paper rl.horizon=4`
    """
    if run is not None and "=" in run:
        overrides, run = [run, *overrides], None
    if run is not None:
        stored = Path(run) / "config.toml"
        if not stored.is_file():
            raise RunError(f"{run} holds no run (it has no config.toml)")
        config = [str(stored), *config]
    found, lines = settings.explain(Config, config, overrides), list[Text]()
    for row in found:
        value, default = ("none" if x is None else json.dumps(x) for x in (row.value, row.default))
        more = "" if value == default else f", by default {default}"
        note = f"  ({row.source}; {row.allowed}{more})\n    {row.meaning}"
        lines.append(Text.assemble((f"{row.key} = {value}", "bold"), (note, "dim")))
    show(as_json, [asdict(row) for row in found], *lines)
