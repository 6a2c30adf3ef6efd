"""Places that a cluster's workers hold: a call that is given up while it waits for one takes none along."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import pytest

from pamdp.llm.cluster import ClusterLimited
from pamdp.llm.limits import Allowed
from tests.tools.scripted import ScriptedChat

ALLOWED = [Allowed(("judge",), 1, math.inf, math.inf)]


class Door:
    """A gatekeeper that lets nobody in before it is told to, and counts who came back."""

    def __init__(self) -> None:
        self.open, self.left = asyncio.Event(), list[int]()
        self.enter = SimpleNamespace(remote=self._enter)
        self.leave = SimpleNamespace(remote=lambda ticket, tokens: self.left.append(ticket))

    async def _enter(self, who: str, allowed: Any, tokens: float) -> int:
        await self.open.wait()
        return 7


@pytest.mark.parametrize("gives_up", [True, False])
def test_a_call_that_stops_waiting_gives_its_place_back(gives_up: bool) -> None:
    async def run() -> tuple[list[int], list[int]]:
        door = Door()
        model = ClusterLimited(ScriptedChat(lambda _: ""), door, "0.0", ALLOWED)

        async def call() -> None:
            async with model.admitted(1.0):
                pass

        task = asyncio.ensure_future(call())
        await asyncio.sleep(0)
        if gives_up:
            task.cancel()
        await asyncio.sleep(0)
        before = list(door.left)
        door.open.set()
        await asyncio.gather(task, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)
        return before, door.left

    assert asyncio.run(run()) == ([], [7])
