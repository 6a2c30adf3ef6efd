"""`pamdp data`: looking at data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pamdp.cli.options import Json, Plugins, SkipBad, show
from pamdp.data.check import check as check_data

app = typer.Typer(name="data", no_args_is_help=True, help="Look at data.")


@app.command()
def check(
    *,
    path: Annotated[Path, typer.Argument(help="File, folder, or hf:OWNER/NAME:SPLIT of the Hugging Face hub.")],
    format: Annotated[str, typer.Option(help="Layout, or auto.")] = "auto",
    skip_bad: SkipBad = False,
    as_json: Json = False,
    plugin: Plugins,
) -> None:
    """Validate dialogues or preference pairs and say what is in them.

    Example: `pamdp data check my.jsonl --skip-bad`
    """
    found = check_data(path, format, skip_bad)
    show(as_json, found.to_json(), found.table())
    raise typer.Exit(0 if found.ok else 1)
