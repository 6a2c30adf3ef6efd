"""How far work is: bars with rate and time left in a terminal, a line now and then in a file; and notes.

Owns how long work is shown, and what is said beside it, all on the error stream. Knows nothing of the work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from pamdp import ranks

EVERY = 30.0
"""Seconds between two lines where no terminal shows a bar; shorter work says nothing there."""


def note(text: str) -> None:
    """One line for whoever watches or keeps the error stream; machines read the other one.

    Of several processes, the first one says it.
    """
    if not ranks.rank():
        print(f"pamdp: {text}", file=sys.stderr, flush=True)


@cache
def note_once(text: str) -> None:
    """A note that is not repeated in this process."""
    note(text)


class Progress:
    """One bar: `with Progress("cloning", 72) as bar: bar.advance(1)`.

    Of TOTAL steps, DONE were done before (a resumed run). Steps that several processes SHARE (`ranks.shared`) are
    counted as if all were equally fast.
    """

    def __init__(
        self, what: str, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic, share: bool = False
    ) -> None:
        self.what, self.total, self.before, self.done, self.clock = what, total, done, done, clock
        self.each = ranks.world_size() if share else 1
        columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        left = (TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[beside]}"))
        self.bars = Bars(
            *columns, *left, console=Console(stderr=True), disable=ranks.rank() > 0 or not sys.stderr.isatty()
        )

    def __enter__(self) -> Self:
        self.bars.start()
        self.task = self.bars.add_task(self.what, total=self.total, completed=self.done, beside="")
        self.began = self.told = self.clock()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bars.stop()
        if self.bars.disable and self.clock() - self.began > EVERY:
            note(f"{self.what} {self.done}/{self.total}, {_span(self.clock() - self.began)} in all")

    def advance(self, steps: int = 1, beside: str = "") -> None:
        """STEPS more are done; BESIDE stands behind the bar."""
        steps = min(steps * self.each, self.total - self.done) if self.each > 1 else steps
        self.done += steps
        self.bars.advance(self.task, steps)
        if beside:
            self.bars.update(self.task, beside=beside)
        now = self.clock()
        if self.bars.disable and now - self.told >= EVERY:
            self.told = now
            rate = (self.done - self.before) / (now - self.began)
            left = f", {_span((self.total - self.done) / rate)} left" if self.total > self.done > self.before else ""
            note(f"{self.what} {self.done}/{self.total}, {rate:.{1 if rate >= 1 else 2}f}/s{left}")


def _span(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
