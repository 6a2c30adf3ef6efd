"""Doing what is missing: a comparison is pieces, and a piece is done when its file is there.

Owns the order, what is said of it, and how several processes share pieces. A run that was killed, with however many
processes, goes on at the piece where it was. Knows nothing of what pieces do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import torch

from pamdp.errors import RunError
from pamdp.evaluation.records import grouped
from pamdp.fingerprint import Fingerprint
from pamdp.launch import Tell, unheard
from pamdp.launcher_config import LauncherConfig
from pamdp.llm.ledger import Ledger
from pamdp.llm.limits import Limiter
from pamdp.ray_launcher import RayLauncher
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


def do_missing(
    make: Callable[..., Work],
    jobs: int = 1,
    plugins: Sequence[Path] = (),
    launcher: LauncherConfig = LauncherConfig(),
) -> None:
    """Do every piece whose file is not there; where one fails, others finish what they are at.

    Args:
      make: gives the work, in this process and in others; workers give it what puts limits around chat models.
      jobs: processes of this machine, started anew, that share what has a group, one thread each; whatever has none is
        done here afterwards.
      plugins: Python files that such processes read first.
      launcher: workers of a cluster that do so in place of them.
    """
    work = make()
    with work.open(), _elsewhere(make, jobs, plugins, launcher) as elsewhere:
        for stage in work.stages():
            if elsewhere is not None:
                groups = grouped((p for p in stage if p.group and not p.file.is_file()), lambda p: p.group)
                # The longest first, so that nobody is left with one at the end.
                order = sorted(groups.values(), key=len, reverse=True)
                elsewhere(order, work.say)
            for piece in stage:
                if not piece.file.is_file():
                    work.say(piece.title)
                    piece.do()


Elsewhere = Callable[[Sequence[Sequence[Piece]], Callable[[str], None]], None]
"""Does groups of pieces, by their files, in other processes, and says which are done."""


@contextmanager
def _elsewhere(
    make: Callable[..., Work], jobs: int, plugins: Sequence[Path], launcher: LauncherConfig
) -> Iterator[Elsewhere | None]:
    """Who else does pieces, if anybody."""

    def by_pool(groups: Sequence[Sequence[Piece]], say: Callable[[str], None]) -> None:
        with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
            files = [_files(group) for group in groups]
            for group, _ in zip(groups, pool.map(partial(_do, make, plugins), files), strict=True):
                for piece in group:
                    say(f"done: {piece.title}")

    if launcher.kind == "local":
        yield by_pool if jobs > 1 else None
        return
    with RayLauncher(launcher, partial(_Pieces, make, plugins)) as workers:

        def by_workers(groups: Sequence[Sequence[Piece]], say: Callable[[str], None]) -> None:
            titles = {piece.file: piece.title for group in groups for piece in group}

            def heard(event: object) -> None:
                assert isinstance(event, Path)
                if not event.is_file():
                    raise RunError(f"a worker has written {event}, and it is not here; take a --run on a disk of all")
                say(f"done: {titles[event]}")

            files = [partial(_files, group) for group in groups]
            workers.map(_do_there, None, files, heard)

        yield by_workers


def _files(group: Sequence[Piece]) -> list[Path]:
    return [piece.file for piece in group]


class _Pieces:
    """The pieces of some work at a worker, by their files; each keeps an account of its own calls."""

    def __init__(self, make: Callable[..., Work], plugins: Sequence[Path], limiter: Limiter | None = None) -> None:
        load_plugins(plugins)
        self.ledger = Ledger()
        with _quietly():
            work = make() if limiter is None else make(limiter=limiter)
            self.pieces = {piece.file: piece for stage in work.stages() for piece in stage}


def _do(make: Callable[..., Work], plugins: Sequence[Path], files: Sequence[Path]) -> None:
    """The pieces of FILES in a process of its own: one thread."""
    torch.set_num_threads(1)
    _do_there(_Pieces(make, plugins), None, files, unheard)


def _do_there(site: _Pieces, shared: None, files: Sequence[Path], tell: Tell) -> None:
    """The pieces of FILES, those that are there already apart: a worker that died may have done some."""
    with _quietly():
        for file in files:
            if not file.is_file():
                site.pieces[file].do()
            tell(file)


@contextmanager
def _quietly() -> Iterator[None]:
    """No bars across those of others."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
        yield
