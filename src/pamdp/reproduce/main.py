"""`pamdp reproduce`: plan, or do what is missing, then write the table.

Owns the order. One run directory serves all tables of one preset: what a table needs and another has computed is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from rich.console import Console

from pamdp.config import GraderConfig
from pamdp.fingerprint import Fingerprint
from pamdp.judges.base import Judge, LiveJudge
from pamdp.judges.graders import Graders
from pamdp.judges.scores import ReplyScorer
from pamdp.models.embedded import load_backbone
from pamdp.reproduce.config import ReproduceConfig
from pamdp.reproduce.grid import cells_of
from pamdp.reproduce.parallel import Crew
from pamdp.reproduce.plan import plan
from pamdp.reproduce.render import findings, to_grids, to_json, write_all
from pamdp.reproduce.results import read_results
from pamdp.reproduce.scoring import score_all
from pamdp.reproduce.tables import Table
from pamdp.reproduce.work import Tools, judge_all, prepare, reply_all, splits_of
from pamdp.runs import Run
from pamdp.train.factory import load_split
from pamdp.workflows import Result

REACHED = ("base_url", "urls", "key_env", "timeout", "tries", "concurrency", "requests_per_minute", "tokens_per_minute")
MAY_CHANGE = ("methods", "seeds", "resamples", "scorers", *(f"grader.{name}" for name in REACHED))
"""Settings that a run may go on with when they are others: what is stored stays right. Who judges and scores is in
fingerprints of their own."""


def standard_tools(grader: GraderConfig) -> Tools:
    """Models from disk; embedded judges, all on one backbone, and language models behind the endpoint of GRADER."""
    console = Console(stderr=True)
    shared = cache(load_backbone)
    graders = Graders(grader, shared)
    check = cache(graders.check)

    def judge(name: str) -> Judge:
        found = graders.judge(name)
        check(name)
        return found

    def scorer(name: str) -> ReplyScorer:
        found = graders.scorer(name)
        check(name)
        return found

    say: Callable[[str], None] = console.print
    return Tools(load_backbone, judge, scorer, say)


def dry_run(config: ReproduceConfig, table: Table, run: Path) -> Result:
    """What it would cost; nothing is written."""
    found = plan(config, table, run)
    return Result(found.to_json(), [*found.grids(), *found.facts()])


def reproduce(config: ReproduceConfig, table: Table, path: Path, tools: Tools, crew: Crew | None = None) -> Result:
    """Train, reply and judge what is missing, then write the table.

    Args:
      crew: processes that share the work; None: it is all done in this one.
    """
    for name in (config.reward, *config.judges):
        tools.judge(name)  # a judge that is not there is found out before anything is trained
    for name in config.scorers:
        tools.scorer(name)
    probes = {name: tools.load(name) for name in config.models}
    splits = splits_of(config, table, path, {name: probe.chat for name, probe in probes.items()})
    revisions = ", ".join(probe.revision for probe in probes.values())
    del probes  # every method loads a backbone of its own
    with _open(config, path, tools, revisions):
        prepare(config, table, path, splits)
        if crew is not None:
            # Verdicts that have to be waited for stay here: this process keeps their limits.
            own = [name for name in config.judges if not isinstance(tools.judge(name), LiveJudge)]
            crew.work(config, table, path, own, tools.say)
        reply_all(config, table, path, tools, splits)
        judge_all(config, table, path, tools, splits)
        score_all(config, cells_of(config, table, path), table, tools, splits)
    return render(config, table, path)


def render(config: ReproduceConfig, table: Table, path: Path) -> Result:
    """Write the table from what is stored: the same bytes every time."""
    results = read_results(config, table, path)
    files = write_all(results, path / table.name)
    shown = [f"{c.cell.title}: {sentence}" for c in results.cells for sentence in findings(c)]
    return Result(
        json.dumps({"run": str(path), "files": [str(file) for file in files], **to_json(results)}, allow_nan=False),
        [*to_grids(results), *shown, *(f"written: {file}" for file in files)],
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
