"""`pamdp reproduce`: the paper's tables and figures, each from one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pamdp.cli.options import Json, Overrides, Plugins, Sources, read_plugins, show
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
    if table == "table3" or table == "fig4" or table == "simulator":
        from pamdp.reproduce.online import main as online
        from pamdp.reproduce.online.config import load_online_config

        path = run or Path(f"runs/reproduce-online-{preset}")
        if render:
            result = online.render_online(online.stored_online_config(path), table, path)
        elif dry_run:
            result = online.dry_run_online(load_online_config(preset, config, overrides), table)
        else:
            learned = online.with_start(load_online_config(preset, config, overrides))
            result = online.reproduce_online(learned, table, path, online.online_tools())
    else:
        from pamdp.reproduce import main as offline
        from pamdp.reproduce.config import load_config
        from pamdp.reproduce.parallel import Crew
        from pamdp.reproduce.tables import table as table_of

        path, page = run or Path(f"runs/reproduce-{preset}"), table_of(table)
        if render:
            result = offline.render(offline.stored_config(path), page, path)
        elif dry_run:
            result = offline.dry_run(load_config(preset, config, overrides), page, path)
        else:
            settings = load_config(preset, config, overrides)
            crew = Crew(jobs, offline.standard_tools, (*plugin, *method)) if jobs > 1 else None
            result = offline.reproduce(settings, page, path, offline.standard_tools(settings.grader), crew)
    show(as_json, result.json, *result.shown)
