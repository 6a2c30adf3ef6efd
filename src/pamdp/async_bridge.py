"""One event loop in the background, so that code that computes can have calls under way and wait for them later.

Owns the loop's thread and futures of what runs on it. Knows nothing of what is called. There is one loop for the whole
process, because a connection that was opened on one loop cannot be used from another.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from inspect import isawaitable
from typing import TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def start(coroutine: Coroutine[object, object, T]) -> Future[T]:
    """Set COROUTINE going on the background loop; cancelling the future cancels it."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="pamdp-calls", daemon=True).start()
    return asyncio.run_coroutine_threadsafe(coroutine, _loop)


def run(coroutine: Coroutine[object, object, T]) -> T:
    """The result of COROUTINE on the background loop (from that loop: a RuntimeError); an interrupt cancels it."""
    if _loop is not None and asyncio._get_running_loop() is _loop:
        coroutine.close()
        raise RuntimeError("a call that waits was made on the loop that it would wait for; await it instead")
    future = start(coroutine)
    try:
        return future.result()
    finally:
        future.cancel()


async def settle(value: T | Awaitable[T]) -> T:
    """A value that is there already, or is waited for."""
    return await value if isawaitable(value) else value


async def together(coroutines: Iterable[Coroutine[object, object, T]]) -> list[T]:
    """All results in order; the first failure cancels the others and is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def done(value: T) -> Future[T]:
    """A future whose result is there already."""
    future: Future[T] = Future()
    future.set_result(value)
    return future


def at_once(coroutine: Coroutine[object, object, T]) -> Future[T]:
    """A future of a coroutine that waits for nothing, run here and now; a RuntimeError where it does after all."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return done(end.value)
    coroutine.close()
    raise RuntimeError("a coroutine that should wait for nothing waits for something")


A = TypeVar("A")
B = TypeVar("B")


def join(function: Callable[[A, B], T], first: Future[A], second: Future[B]) -> Future[T]:
    """FUNCTION of two results as soon as both are there, or the first failure of one."""

    async def both() -> T:
        return function(*await asyncio.gather(asyncio.wrap_future(first), asyncio.wrap_future(second)))

    return start(both())
