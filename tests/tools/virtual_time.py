"""An event loop whose time passes only when nothing else is left to do: waiting costs no time, and can be measured."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Sleeps take no time; `time()` says how long they would have taken."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout:
            self.loop.now += timeout
        elif not found and timeout is None:
            return super().select(0.01)  # a thread may be about to call
        return found


def play(coroutine: Coroutine[object, object, T]) -> tuple[T, float]:
    """The result of a coroutine and the seconds that it would have taken."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(coroutine), loop.time()
    finally:
        loop.close()
