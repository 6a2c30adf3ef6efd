"""The background loop: results, failures, interrupts, and no waiting for oneself."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

import pytest

from pamdp.async_bridge import at_once, done, join, run, settle, start, together


async def _double(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


async def _fail(word: str) -> int:
    raise ValueError(word)


def test_results_and_failures_come_back() -> None:
    assert run(_double(2)) == 4 and start(_double(3)).result() == 6
    with pytest.raises(ValueError, match="word"):
        run(_fail("word"))


def test_what_would_wait_for_itself_is_refused() -> None:
    async def inside() -> int:
        return run(_double(1))

    with pytest.raises(RuntimeError, match="await it instead"):
        run(inside())


def test_all_together_in_order_and_the_first_failure_cancels_the_rest() -> None:
    assert run(together(_double(x) for x in range(4))) == [0, 2, 4, 6]
    ended: list[str] = []

    async def slow() -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return 0

    async def both() -> None:
        with pytest.raises(ValueError, match="first"):
            await together([slow(), _fail("first")])
        await asyncio.sleep(0)

    run(both())
    assert ended == ["cancelled"]


def test_a_value_or_what_is_waited_for_is_settled() -> None:
    assert run(settle(_double(1))) == 2 and run(settle("here")) == "here"


def test_what_waits_for_nothing_is_run_at_once() -> None:
    async def plain() -> str:
        return await settle("here")

    future = at_once(plain())
    assert future.done() and future.result() == "here"
    with pytest.raises(RuntimeError, match="waits for something"):
        at_once(_double(1))
    with pytest.raises(ValueError, match="word"):
        at_once(_fail("word"))


def test_two_futures_are_joined_when_both_are_there() -> None:
    late: Future[int] = Future()
    whole = join(lambda a, b: a + b, late, done(2))
    assert not whole.done()
    late.set_result(1)
    assert whole.result() == 3
    broken: Future[int] = Future()
    broken.set_exception(ValueError("word"))
    with pytest.raises(ValueError, match="word"):
        join(lambda a, b: a + b, broken, done(1)).result()
