"""`pamdp reproduce`: plan, or do what is missing, then write the page.

Owns the order, which is one for all tables and figures; offline and online differ in their settings, pieces and pages.
One run directory serves all tables of a kind and preset: what one needs and another has computed is there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import RenderableType

from pamdp.errors import ConfigError
from pamdp.launcher_config import require_local
from pamdp.registry import load_plugins
from pamdp.reproduce.audit_page import audit_page
from pamdp.reproduce.cells import Grid
from pamdp.reproduce.config import OnlineReproduceConfig, Preset, ReproduceConfig, load_config
from pamdp.reproduce.offline import standard_offline
from pamdp.reproduce.offline_page import offline_page
from pamdp.reproduce.online import standard_online, with_start
from pamdp.reproduce.online_page import online_page
from pamdp.reproduce.plan import plan_offline, plan_online
from pamdp.reproduce.read import KEY, take_verdicts, write_sheets
from pamdp.reproduce.tables import Table, table
from pamdp.reproduce.work import do_missing
from pamdp.runs import Run
from pamdp.sites import Sent, launched, online_site
from pamdp.train.init_from import policy_folder
from pamdp.workflows import Result

AnyConfig = ReproduceConfig | OnlineReproduceConfig


def reproduce(
    name: str,
    preset: Preset,
    path: Path,
    sources: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    plugins: Sequence[Path] = (),
    jobs: int = 1,
    *,
    dry: bool = False,
    rendered: bool = False,
) -> Result:
    """A table or figure by name, in the run directory at PATH.

    Args:
      jobs: processes that share the work; 1 where the settings name workers (`launcher`).
      dry: only say what there would be to do; nothing is written.
      rendered: only write the page again, under the settings of the run.

    Raises:
      ConfigError: there is no such table, a key is unknown or a value wrong.
      RunError: there is no such run, or it is of something else.
      EndpointError: a model cannot be reached; the same command goes on.
    """
    load_plugins(plugins)
    found = table(name)
    kind: type[AnyConfig] = OnlineReproduceConfig if found.online else ReproduceConfig
    config = Run(path).config(kind) if rendered else load_config(kind, preset, sources, overrides)
    if dry and not rendered:
        return plan(config, found, path)
    if not rendered:
        _do(config, found, path, jobs, plugins)
    return render(config, found, path)


def _do(config: AnyConfig, table: Table, path: Path, jobs: int, plugins: Sequence[Path]) -> None:
    """Do what is missing; workers share pieces offline and, online, the dialogues and verdicts of each piece."""
    if config.launcher.kind != "local":
        if jobs > 1:
            raise ConfigError(f"--jobs={jobs} are processes of this machine; set launcher.workers, or leave out ray")
        path = path.absolute()  # workers may start in another folder
    if not isinstance(config, OnlineReproduceConfig):
        do_missing(partial(standard_offline, Grid(config, table, path)), jobs, plugins, config.launcher)
        return
    if table.name == "simulator":
        require_local(config.launcher, "the audit of simulated users")
    config = with_start(config)
    sent = partial(Sent.of, config.of_evaluation(config.seeds[0]), policy_folder(config.start), plugins)
    with launched(config.launcher, online_site, sent, config.second) as launcher:
        do_missing(partial(standard_online, config, table, path, launcher), jobs, plugins)


def sheets(name: str, path: Path, states: int) -> Result:
    """Write blind sheets of so many STATES of what the run at PATH holds of a table; errors as `reproduce`."""
    made = [str(folder) for folder in write_sheets(_stored(name, path), states)]
    said = [
        f"{states} states to read: {folder}/sheet.html; not for readers: {KEY} beside that folder" for folder in made
    ]
    return Result(json.dumps({"run": str(path), "sheets": made}), said)


def readings(name: str, path: Path, files: Sequence[Path]) -> Result:
    """Keep what blind readers said of such sheets, and write the page with it; errors as `reproduce`."""
    grid = _stored(name, path)
    take_verdicts(grid, files)
    return render(grid.config, grid.table, path)


def _stored(name: str, path: Path) -> Grid:
    """The pieces of a table in a run; a ConfigError where methods do not answer the same states."""
    if (found := table(name)).online:
        raise ConfigError(f"{name}: online every method talks in dialogues of its own, so nobody can compare replies")
    return Grid(Run(path).config(ReproduceConfig), found, path)


def plan(config: AnyConfig, table: Table, path: Path) -> Result:
    """What there would be to do."""
    if isinstance(config, OnlineReproduceConfig):
        return plan_online(config, table)
    return plan_offline(Grid(config, table, path))


def render(config: AnyConfig, table: Table, path: Path) -> Result:
    """Write the page from what is stored: the same bytes every time."""
    if isinstance(config, OnlineReproduceConfig):
        page = (audit_page if table.name == "simulator" else online_page)(config, table, path)
    else:
        page = offline_page(Grid(config, table, path))
    files = page.write(path / table.name)
    document = {"run": str(path), "files": [str(file) for file in files], **page.body()}
    shown: list[RenderableType] = [*page.shown, *page.findings, *(f"written: {file}" for file in files)]
    return Result(json.dumps(document, allow_nan=False), shown)
