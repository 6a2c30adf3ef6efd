"""Doing what is missing: a comparison is pieces, and a piece is done when its file is there.

Owns the order, what is said of it, and how several processes share pieces. A run that was killed, with however many
processes, goes on at the piece where it was. Knows nothing of what pieces do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import torch

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
      do: does it.
      group: pieces of one group may be done by another process, one after another; empty: by this one only.
    """

    file: Path
    title: str
    do: Callable[[], None]
    group: str = ""


class Work(Protocol):
    """What is to be done, and where."""

    def open(self) -> AbstractContextManager[None]:
        """Refuse what can be refused, then hold the run directory."""
        ...

    def stages(self) -> Iterable[Sequence[Piece]]:
        """All pieces in order; each stage needs the files of those before it."""
        ...

    @property
    def say(self) -> Callable[[str], None]:
        """Told what is done next."""
        ...


def hold(path: Path, config: Settings, fingerprint: Fingerprint, may_change: Sequence[str]) -> Run:
    """The run at PATH, which is new or goes on; MAY_CHANGE names settings that may be others than before."""
    if path.exists():
        return Run.resume(path, config, fingerprint, may_change)
    return Run.create(path, config, fingerprint)


def do_missing(make: Callable[[], Work], jobs: int = 1, plugins: Sequence[Path] = ()) -> None:
    """Do every piece whose file is not there.

    Args:
      make: gives the work; with more than one job it is called in each process, which is started anew.
      jobs: processes that share what has a group, one thread each; whatever has none is done here afterwards.
      plugins: Python files that such a process reads first.

    Raises:
      PamdpError: what a piece failed with; other processes finish what they are at.
    """
    work = make()
    with work.open():
        pool = ProcessPoolExecutor(jobs, get_context("spawn"), _alone, (make, plugins)) if jobs > 1 else None
        try:
            for stage in work.stages():
                if pool is not None:
                    _share(pool, [piece for piece in stage if piece.group and not piece.file.is_file()], work.say)
                for piece in stage:
                    if not piece.file.is_file():
                        work.say(piece.title)
                        piece.do()
        finally:
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)


def _share(pool: ProcessPoolExecutor, pieces: Sequence[Piece], say: Callable[[str], None]) -> None:
    groups: dict[str, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.group, []).append(piece)
    # The longest first, so that nobody is left with one at the end.
    order = sorted(groups.values(), key=len, reverse=True)
    futures = {pool.submit(_do, [piece.file for piece in group]): group for group in order}
    for future in as_completed(futures):
        future.result()
        for piece in futures[future]:
            say(f"done: {piece.title}")


_made: list[Callable[[], Work]] = []
"""In a process of its own: what gives the work there."""


def _alone(make: Callable[[], Work], plugins: Sequence[Path]) -> None:
    """A process of its own: one thread, and no bars across those of the others."""
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    load_plugins(plugins)
    _made.append(make)


@cache
def _pieces() -> dict[Path, Piece]:
    return {piece.file: piece for stage in _made[0]().stages() for piece in stage}


def _do(files: Sequence[Path]) -> None:
    for file in files:
        _pieces()[file].do()
