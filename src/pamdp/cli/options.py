"""What verbs share: options, and how a result is printed.

Knows nothing of what verbs do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, RenderableType

from pamdp import ranks
from pamdp.registry import load_plugins


def read_plugins(files: list[Path]) -> list[Path]:
    """What becomes of FILES as soon as they are named: settings are read later and know what they register."""
    load_plugins(files)
    return files


SHEET, KEY = "reading", "reading-key.json"
"""Where in a run a sheet for blind readers is, and its key, unless options say otherwise."""
From = Annotated[str, typer.Option("--from", help="Run that was cloned, or `shipped`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Overrides = Annotated[
    list[str],
    typer.Argument(help="Dotted settings, such as clone.epochs=2.", default_factory=list, show_default=False),
]
Plugins = Annotated[
    list[Path],
    typer.Option(
        "--plugin",
        help="Python file that registers advantages, methods or other parts; repeat.",
        callback=read_plugins,
        default_factory=list,
        show_default=False,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a run that was interrupted.")]
RunDir = Annotated[Path, typer.Option("--run", help="Run directory.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Count and skip bad records.")]
Sources = Annotated[
    list[str],
    typer.Option(
        "--config", "-c", help="TOML file or preset; repeat to layer.", default_factory=list, show_default=False
    ),
]


def show(as_json: bool, document: object, *parts: RenderableType) -> None:
    """Print a result on the output stream: DOCUMENT (JSON already where it is a text) or, for people, PARTS.

    Of several processes, the first one prints.
    """
    if ranks.rank():
        return
    if as_json:
        print(document if isinstance(document, str) else json.dumps(document))
        return
    console = Console()
    for part in parts:
        console.print(part)
