"""`pamdp reproduce`: plan, or do what is missing, then write the table.

Owns the order. One run directory serves all tables of one preset: what a table needs and another has computed is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from rich.console import Console

from pamdp.fingerprint import Fingerprint
from pamdp.judges.base import Judge
from pamdp.judges.embedded import load_judge
from pamdp.models.embedded import load_backbone
from pamdp.parts import Result
from pamdp.reproduce.config import ReproduceConfig
from pamdp.reproduce.plan import plan
from pamdp.reproduce.render import findings, to_grid, to_json, write_all
from pamdp.reproduce.results import read_results
from pamdp.reproduce.tables import Table
from pamdp.reproduce.work import Tools, judge_all, reply_all, splits_of
from pamdp.runs import Run
from pamdp.train.setup import load_split

MAY_CHANGE = ("methods", "seeds", "resamples")
"""Settings that a run may go on with when they are others: what is stored stays right."""


def standard_tools() -> Tools:
    """Models from disk; judges of the package, all on one backbone."""
    console = Console(stderr=True)
    shared = cache(load_backbone)

    @cache
    def judge(name: str) -> Judge:
        return load_judge(name, shared())

    say: Callable[[str], None] = console.print
    return Tools(load_backbone, judge, say)


def dry_run(config: ReproduceConfig, table: Table, run: Path) -> Result:
    """What it would cost; nothing is written."""
    found = plan(config, table, run)
    return Result(found.to_json(), [found.grid(), *found.facts()])


def reproduce(config: ReproduceConfig, table: Table, path: Path, tools: Tools) -> Result:
    """Train, reply and judge what is missing, then write the table."""
    for name in (config.reward, *config.judges):
        tools.judge(name)  # a judge that is not there is found out before anything is trained
    probes = {name: tools.load(name) for name in config.models}
    splits = splits_of(config, table, path, {name: probe.chat for name, probe in probes.items()})
    revisions = ", ".join(probe.revision for probe in probes.values())
    del probes  # every method loads a backbone of its own
    with _open(config, path, tools, revisions):
        reply_all(config, table, path, tools, splits)
        judge_all(config, table, path, tools, splits)
    return render(config, table, path)


def render(config: ReproduceConfig, table: Table, path: Path) -> Result:
    """Write the table from what is stored: the same bytes every time."""
    results = read_results(config, table, path)
    files = write_all(results, path / table.name)
    shown = [f"{c.cell.title}: {sentence}" for c in results.cells for sentence in findings(c)]
    return Result(
        json.dumps({"run": str(path), "files": [str(file) for file in files], **to_json(results)}, allow_nan=False),
        [to_grid(results), *shown, *(f"written: {file}" for file in files)],
    )


def stored_config(path: Path) -> ReproduceConfig:
    """The settings that a run was made with.

    Raises:
      RunError: there is no such run.
    """
    return Run(path).config(ReproduceConfig)


def _open(config: ReproduceConfig, path: Path, tools: Tools, revisions: str) -> Run:
    prints = tuple(
        {**tools.judge(name).fingerprint, "role": "reward and evaluation" if name == config.reward else "evaluation"}
        for name in dict.fromkeys((config.reward, *config.judges))
    )
    # All data of the settings, not only this table's: tables with other columns share the run.
    data = ", ".join(load_split(source).sha256 for source in (config.aloe, config.prefeval) if source.path)
    fingerprint = Fingerprint(data=data, model=", ".join(config.models), revision=revisions, judges=prints)
    if path.exists():
        return Run.resume(path, config, fingerprint, MAY_CHANGE)
    return Run.create(path, config, fingerprint)
