"""`pamdp reproduce`: the paper's tables and figures, each from one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pamdp.cli.options import Json, Overrides, Plugins, Sources, read_plugins, show
from pamdp.errors import ConfigError
from pamdp.reproduce.config import Preset

app = typer.Typer()
Page = Literal["table2", "table3", "table5", "table6", "fig3", "fig4", "simulator"]


@app.command()
def reproduce(
    *,
    table: Annotated[Page, typer.Argument(help="Which table or figure of the paper, or its audit of simulated users.")],
    preset: Annotated[
        Preset, typer.Option(help="`cpu`: the embedded backbone, small; `paper`: its models and settings.")
    ] = "cpu",
    run: Annotated[
        Path | None,
        typer.Option(help="Run directory; by default runs/reproduce-PRESET, or runs/reproduce-online-PRESET."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Resolve the settings and estimate the work.")] = False,
    jobs: Annotated[int, typer.Option(help="Processes that share the work, one thread each.", min=1)] = 1,
    render: Annotated[bool, typer.Option("--render", help="Only write the table again from what is stored.")] = False,
    sheet: Annotated[
        int | None,
        typer.Option(
            help="Only write blind sheets of so many states of what is stored, one for each column and seed.", min=1
        ),
    ] = None,
    readings: Annotated[
        list[Path],
        typer.Option(
            help="Verdicts of blind readers on such a sheet; repeat. They are kept, and stand above the judges.",
            default_factory=list,
            show_default=False,
        ),
    ],
    config: Sources,
    plugin: Plugins,
    method: Annotated[list[Path], typer.Option("--method", hidden=True, callback=read_plugins, default_factory=list)],
    as_json: Json = False,
    overrides: Overrides,
) -> None:
    """Train what is missing, grade it against the same Vanilla replies, and write the table beside the paper's.

    What RUN already holds is not done again: a run that was interrupted continues, and tables share their methods.
    Online (`table3`, `fig4`, `simulator`): methods learn by talking with simulated users and are evaluated with others.

    Example: `pamdp reproduce table2 --preset cpu prefeval.path=data/prefeval`
    """
    from pamdp.reproduce import main

    online = table in ("table3", "fig4", "simulator")
    path = run or Path(f"runs/reproduce-{'online-' if online else ''}{preset}")
    modes = {"--dry-run": dry_run, "--render": render, "--sheet": sheet is not None, "--readings": bool(readings)}
    if len(chosen := [name for name, given in modes.items() if given]) > 1:
        raise ConfigError(f"{' and '.join(chosen)} are different things to do; give one of them")
    if sheet is not None:
        result = main.sheets(table, path, sheet)
    elif readings:
        result = main.readings(table, path, readings)
    else:
        result = main.reproduce(
            table, preset, path, config, overrides, (*plugin, *method), jobs, dry=dry_run, rendered=render
        )
    show(as_json, result.json, *result.shown)
