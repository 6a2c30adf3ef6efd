"""Several processes that do pieces of one comparison at the same time, one thread each.

Owns the parting of the work: pieces that write to one folder stay together, and no two processes write the same file.
What a killed crew has finished is there, as with one process. Verdicts of language models stay with the process that
has the crew: it keeps their limits.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import torch

from pamdp.baselines.registry import find
from pamdp.config import GraderConfig
from pamdp.registry import load_plugins
from pamdp.reproduce.config import ReproduceConfig
from pamdp.reproduce.grid import Cell, split_of
from pamdp.reproduce.tables import Table
from pamdp.reproduce.work import Tools, compare, missing_replies, missing_verdicts, reply

Factory = Callable[[GraderConfig], Tools]


@dataclass(frozen=True, slots=True)
class Unit:
    """Pieces of one cell and seed that one process does one after another.

    Attributes:
      methods: to be trained, by name; or
      judge, pairs: who compares, and what.
    """

    cell: Cell
    seed: int
    methods: tuple[str, ...] = ()
    judge: str = ""
    pairs: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """What is said when it is done."""
        what = f"{self.judge} has compared" if self.judge else ", ".join(self.methods)
        return f"{self.cell.title}, seed {self.seed}: {what}"


@dataclass(frozen=True, slots=True)
class Crew:
    """Processes that share the work of a comparison.

    Attributes:
      size: how many.
      tools: makes the tools of one process; a function of a module, because processes are started anew.
      files: Python files that register methods.
    """

    size: int
    tools: Factory
    files: tuple[Path, ...] = ()

    def work(
        self, config: ReproduceConfig, table: Table, run: Path, judges: Sequence[str], say: Callable[[str], None]
    ) -> None:
        """Do what is missing: all replies first, then the verdicts of JUDGES.

        Raises:
          PamdpError: what a process has failed with; the others finish what they are at.
        """
        with ProcessPoolExecutor(self.size, get_context("spawn"), _alone, (self.files,)) as pool:
            try:
                for find_units in (_trainings, partial(_verdicts, judges)):
                    units = find_units(config, table, run)
                    _wait({pool.submit(_do, self.tools, config, unit): unit for unit in units}, say)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _wait(futures: dict[Future[None], Unit], say: Callable[[str], None]) -> None:
    for future in as_completed(futures):
        future.result()
        say(f"done: {futures[future].title}")


def _trainings(config: ReproduceConfig, table: Table, run: Path) -> list[Unit]:
    groups: dict[tuple[str, int, str], list[tuple[Cell, str]]] = {}
    for cell, seed, method in missing_replies(config, table, run):
        groups.setdefault((cell.folder.name, seed, method.shares or method.name), []).append((cell, method.name))
    units = [Unit(group[0][0], seed, tuple(n for _, n in group)) for (_, seed, _), group in groups.items()]
    # The longest first, so that nobody is left with one at the end.
    return sorted(units, key=lambda unit: -len(unit.methods))


def _verdicts(judges: Sequence[str], config: ReproduceConfig, table: Table, run: Path) -> list[Unit]:
    units = []
    for judge in judges:
        groups: dict[tuple[str, int], list[tuple[Cell, tuple[str, str]]]] = {}
        for cell, seed, pair in missing_verdicts(judge, config, table, run):
            groups.setdefault((cell.folder.name, seed), []).append((cell, pair))
        units += [Unit(g[0][0], seed, judge=judge, pairs=tuple(p for _, p in g)) for (_, seed), g in groups.items()]
    return units


def _alone(files: Sequence[Path]) -> None:
    """A process of its own: one thread, and no bars across those of the others."""
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    load_plugins(files)


@cache
def _tools(factory: Factory, grader: str) -> Tools:
    return factory(GraderConfig.model_validate_json(grader))


def _do(factory: Factory, config: ReproduceConfig, unit: Unit) -> None:
    tools = _tools(factory, config.grader.model_dump_json())
    split = split_of(unit.cell, config, unit.seed, tools.load(unit.cell.model).chat)
    for name in unit.methods:
        reply(unit.cell, find(name), unit.seed, config, tools, split)
    for pair in unit.pairs:
        compare(unit.cell, unit.judge, pair, unit.seed, config, tools, split)
