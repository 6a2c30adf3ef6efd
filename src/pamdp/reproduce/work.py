"""Doing what is missing: a comparison is pieces, and a piece is done when its file is there.

Owns the order, what is said of it, and how several processes share pieces. A run that was killed, with however many
processes, goes on at the piece where it was. Knows nothing of what pieces do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import torch

from pamdp.evaluation.records import grouped
from pamdp.fingerprint import Fingerprint
from pamdp.registry import load_plugins
from pamdp.runs import Run
from pamdp.settings import Settings


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing to do.

    Attributes:
      file: there when it is done; no two pieces have the same.
      title: said before it is begun.
      group: pieces of one group may be done by another process, one after another; empty: by this one only.
    """

    file: Path
    title: str
    do: Callable[[], None]
    group: str = ""


class Work(Protocol):
    """What is to be done, and where."""

    @property
    def say(self) -> Callable[[str], None]:
        """Told what is done next."""

    def open(self) -> AbstractContextManager[None]:
        """Refuse what can be refused, then hold the run directory."""

    def stages(self) -> Iterable[Sequence[Piece]]:
        """All pieces in order; each stage needs the files of those before it."""


def hold(path: Path, config: Settings, fingerprint: Fingerprint, may_change: Sequence[str]) -> Run:
    """The run at PATH, which is new or goes on; MAY_CHANGE names settings that may be others than before."""
    if path.exists():
        return Run.resume(path, config, fingerprint, may_change)
    return Run.create(path, config, fingerprint)


def do_missing(make: Callable[[], Work], jobs: int = 1, plugins: Sequence[Path] = ()) -> None:
    """Do every piece whose file is not there; where one fails, other processes finish what they are at.

    Args:
      make: gives the work, in this process and, with more jobs than one, in processes that are started anew.
      jobs: how many share what has a group, one thread each; whatever has none is done here afterwards.
      plugins: Python files that such processes read first.
    """
    work = make()
    with work.open():
        for stage in work.stages():
            if jobs > 1:
                groups = grouped((p for p in stage if p.group and not p.file.is_file()), lambda p: p.group)
                # The longest first, so that nobody is left with one at the end.
                order = sorted(groups.values(), key=len, reverse=True)
                with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
                    files = [[piece.file for piece in group] for group in order]
                    for group, _ in zip(order, pool.map(partial(_do, make, plugins), files), strict=True):
                        for piece in group:
                            work.say(f"done: {piece.title}")
            for piece in stage:
                if not piece.file.is_file():
                    work.say(piece.title)
                    piece.do()


def _do(make: Callable[[], Work], plugins: Sequence[Path], files: Sequence[Path]) -> None:
    """The pieces of FILES in a process of its own: one thread, and no bars across those of the others."""
    torch.set_num_threads(1)
    load_plugins(plugins)
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
        pieces = {piece.file: piece for stage in make().stages() for piece in stage}
        for file in files:
            pieces[file].do()
