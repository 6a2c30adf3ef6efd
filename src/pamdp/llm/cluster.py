"""Limits that the workers of a cluster keep together: one actor lets their calls in.

Owns places and who holds them. Knows nothing of what is called, nor of how actors are started (ray_launcher.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

from pamdp.llm.chat import ChatModel, Completion, Decoding, Messages
from pamdp.llm.limits import Allowed, Limited, Limiter


class _Nobody:
    """Stands in for a model where only its limits matter."""

    @property
    def fingerprint(self) -> dict[str, str]:
        return {}

    async def complete(self, messages: Messages, decoding: Decoding = Decoding(), *, seed: int = 0) -> Completion:
        raise NotImplementedError


class Gatekeeper:
    """An actor that lets calls of all workers in, within the limits of each server."""

    def __init__(self) -> None:
        self.limiter, self.tickets = Limiter(), count()
        self.held: dict[int, tuple[str, AsyncExitStack, Callable[[int], None]]] = {}
        self.gone: set[str] = set()

    async def enter(self, who: str, allowed: Sequence[Allowed], tokens: float) -> int:
        """Wait for a place for a call of WHO; the number that gives it back."""
        stack, ticket = AsyncExitStack(), next(self.tickets)
        used = await stack.enter_async_context(self.limiter(_Nobody(), *allowed).admitted(tokens))
        self.held[ticket] = who, stack, used
        if who in self.gone:  # died while it waited
            await self.leave(ticket, 0)
        return ticket

    async def leave(self, ticket: int, tokens: int) -> None:
        """Give a place back; TOKENS that the call took, 0 where that is not known."""
        if ticket in self.held:
            _, stack, used = self.held.pop(ticket)
            if tokens:
                used(tokens)
            await stack.aclose()

    async def release(self, who: str) -> None:
        """Give back all places of a worker that died."""
        self.gone.add(who)
        await asyncio.gather(*(self.leave(ticket, 0) for ticket, held in list(self.held.items()) if held[0] == who))


class ClusterLimited(Limited):
    """A chat model that is called when the gatekeeper lets WHO in."""

    def __init__(self, model: ChatModel, gatekeeper: Any, who: str, allowed: Sequence[Allowed]) -> None:
        super().__init__(model)
        self.gatekeeper, self.who, self.allowed = gatekeeper, who, allowed

    @asynccontextmanager
    async def admitted(self, tokens: float) -> AsyncIterator[Callable[[int], None]]:
        """Hold a place for a call; see Limited."""
        ticket, taken = await self._enter(tokens), 0

        def used(tokens: int) -> None:
            nonlocal taken
            taken = tokens

        try:
            yield used
        finally:
            self.gatekeeper.leave.remote(ticket, taken)

    async def _enter(self, tokens: float) -> Any:
        """A ticket; whoever stops waiting for one gives it back as soon as it comes."""
        entering = asyncio.ensure_future(self.gatekeeper.enter.remote(self.who, self.allowed, tokens))

        def give_back(done: asyncio.Future[Any]) -> None:
            if not done.cancelled() and done.exception() is None:
                self.gatekeeper.leave.remote(done.result(), 0)

        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:
            entering.add_done_callback(give_back)
            raise


class ClusterLimiter(Limiter):
    """Puts limits around chat models that a whole cluster keeps."""

    def __init__(self, gatekeeper: Any, who: str) -> None:
        super().__init__()
        self.gatekeeper, self.who = gatekeeper, who

    def __call__(self, model: ChatModel, *allowed: Allowed) -> Limited:
        """MODEL within all of some limits."""
        return ClusterLimited(model, self.gatekeeper, self.who, allowed)
