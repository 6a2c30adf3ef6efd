"""`pamdp lab`: the theory in small exact problems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pamdp.cli.options import Json, Plugins, show

app = typer.Typer()


@app.command()
def lab(
    *,
    figure: Annotated[Path | None, typer.Option(help="Also draw the results into this file (svg, png, pdf).")] = None,
    as_json: Json = False,
    plugin: Plugins,
) -> None:
    """The theory in numbers: exact PAMDPs and the advantage estimators, in under a minute.

    Example: `pamdp lab --json`
    """
    from pamdp.lab.benchmark import run_benchmark

    found = run_benchmark()
    if figure is not None:
        found.figure(figure)
    show(as_json, found.to_json(), *(section.table() for section in found.sections))
