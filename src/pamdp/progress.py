"""Progress bars with rate and time left, on the error stream, silent where nobody watches; and notes.

Owns how long work is shown, and what is said beside it. Knows nothing of the work.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


def note(text: str) -> None:
    """One line for whoever watches or keeps the error stream; machines read the other one."""
    print(f"pamdp: {text}", file=sys.stderr)


class Progress:
    """One bar: `with Progress("cloning", 72) as bar: bar.advance(1)`.

    Args:
      what: the word before the bar.
      total: how many steps there are.
      done: how many were done before (a resumed run).
    """

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done = what, total, done
        self.bars = Bars(
            TextColumn("{task.description:>12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> Self:
        self.bars.start()
        self.task = self.bars.add_task(self.what, total=self.total, completed=self.done, note="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bars.stop()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """STEPS more are done; NOTE stands behind the bar."""
        self.bars.advance(self.task, steps)
        if note:
            self.bars.update(self.task, note=note)
