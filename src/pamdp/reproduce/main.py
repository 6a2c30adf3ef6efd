"""`pamdp reproduce`: plan, or do what is missing, then write the page.

Owns the order, which is one for all tables and figures; offline and online differ in their settings, pieces and pages.
One run directory serves all tables of a kind and preset: what one needs and another has computed is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import RenderableType

from pamdp.reproduce.audit_page import audit_page
from pamdp.reproduce.cells import Grid
from pamdp.reproduce.config import OnlineReproduceConfig, Preset, ReproduceConfig, load_config
from pamdp.reproduce.offline import standard_offline
from pamdp.reproduce.offline_page import offline_page
from pamdp.reproduce.online import standard_online, with_start
from pamdp.reproduce.online_page import online_page
from pamdp.reproduce.plan import plan_offline, plan_online
from pamdp.reproduce.tables import Table
from pamdp.reproduce.work import Work, do_missing
from pamdp.runs import Run
from pamdp.workflows import Result

AnyConfig = ReproduceConfig | OnlineReproduceConfig


def settings(table: Table, preset: Preset, sources: Sequence[str | Path], overrides: Sequence[str]) -> AnyConfig:
    """The settings of a comparison: the preset, then further sources, then overrides.

    Raises:
      ConfigError: a key is unknown or a value wrong.
    """
    if table.online:
        return load_config(OnlineReproduceConfig, preset, sources, overrides)
    return load_config(ReproduceConfig, preset, sources, overrides)


def stored_settings(table: Table, path: Path) -> AnyConfig:
    """The settings that a run was made with.

    Raises:
      RunError: there is no such run.
    """
    return Run(path).config(OnlineReproduceConfig) if table.online else Run(path).config(ReproduceConfig)


def dry_run(config: AnyConfig, table: Table, path: Path) -> Result:
    """What there would be to do; nothing is written."""
    if isinstance(config, OnlineReproduceConfig):
        return plan_online(config, table)
    return plan_offline(Grid(config, table, path))


def reproduce(
    config: AnyConfig,
    table: Table,
    path: Path,
    make: Callable[[], Work] | None = None,
    jobs: int = 1,
    plugins: Sequence[Path] = (),
) -> Result:
    """Do what is missing, then write the page.

    Args:
      make: gives the work, in every process; None: with models from disk and servers of the settings.
      jobs: processes that share the work.
      plugins: Python files that register methods, for these processes.

    Raises:
      EndpointError: a model cannot be reached; the same command goes on.
    """
    if make is None:
        config = with_start(config) if isinstance(config, OnlineReproduceConfig) else config
    do_missing(make or partial(_work, config, table, path), jobs, plugins)
    return render(config, table, path)


def render(config: AnyConfig, table: Table, path: Path) -> Result:
    """Write the page from what is stored: the same bytes every time."""
    if not isinstance(config, OnlineReproduceConfig):
        page = offline_page(Grid(config, table, path))
    else:
        page = (audit_page if table.name == "simulator" else online_page)(config, table, path)
    files = page.write(path / table.name)
    document = {"run": str(path), "files": [str(file) for file in files], **page.body()}
    shown: list[RenderableType] = [*page.shown, *page.findings, *(f"written: {file}" for file in files)]
    return Result(json.dumps(document, allow_nan=False), shown)


def _work(config: AnyConfig, table: Table, path: Path) -> Work:
    if isinstance(config, OnlineReproduceConfig):
        return standard_online(config, table, path)
    return standard_offline(Grid(config, table, path))
