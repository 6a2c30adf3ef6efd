"""How often and how many at once a chat model is called, and what happens when a call fails in passing.

Owns waiting; tenacity owns the pauses between tries. Knows nothing of what is asked. Time is that of the event loop, so
that tests need none.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential, wait_random_exponential

from pamdp.errors import EndpointError
from pamdp.llm.chat import Around, ChatModel, Completion, Decoding, Messages, TransientError

WINDOW = 60.0
"""Seconds that "per minute" looks back."""


class Allowed(NamedTuple):
    """What a server allows; limits of the same name are the same ones."""

    name: tuple[str, ...]
    concurrency: int
    requests_per_minute: float
    tokens_per_minute: float


class Limits:
    """What a server allows at once and in any minute; whoever shares it waits in the order in which they came."""

    def __init__(
        self, concurrency: int = 16, requests_per_minute: float = math.inf, tokens_per_minute: float = math.inf
    ) -> None:
        self.concurrency, self.requests, self.tokens = concurrency, requests_per_minute, tokens_per_minute
        self._slots = asyncio.Semaphore(concurrency)
        self._door = asyncio.Lock()
        self._past: deque[list[float]] = deque()

    @asynccontextmanager
    async def admitted(self, tokens: float) -> AsyncIterator[list[float]]:
        """Hold a place for a call of so many TOKENS; its entry, [when it began, tokens], may be corrected."""
        # A single call above the limit would wait for ever.
        tokens = min(tokens, self.tokens)
        async with self._slots:
            async with self._door:
                now = asyncio.get_running_loop().time
                while not self._fits(tokens, now()):
                    await asyncio.sleep(max(self._past[0][0] + WINDOW - now(), 1e-3))
                entry = [now(), tokens]
                self._past.append(entry)
            yield entry

    def _fits(self, tokens: float, now: float) -> bool:
        while self._past and self._past[0][0] + WINDOW <= now:
            self._past.popleft()
        return len(self._past) < self.requests and sum(used for _, used in self._past) + tokens <= self.tokens


class Limited(Around):
    """A chat model that is called within all of some limits.

    A call's tokens are estimated before it (four characters each, and the longest answer), and counted after it.
    """

    def __init__(self, model: ChatModel, *limits: Limits) -> None:
        super().__init__(model)
        self.limits = limits

    async def complete(self, messages: Messages, decoding: Decoding = Decoding(), *, seed: int = 0) -> Completion:
        """The model's answer, when its turn has come; see ChatModel."""
        async with self.admitted(sum(len(m.content) for m in messages) / 4 + decoding.max_tokens) as used:
            answer = await self.model.complete(messages, decoding, seed=seed)
            if tokens := answer.prompt_tokens + answer.completion_tokens:
                used(tokens)
            return answer

    @asynccontextmanager
    async def admitted(self, tokens: float) -> AsyncIterator[Callable[[int], None]]:
        """Hold a place for a call of so many TOKENS; what it gives is told how many they were."""
        async with AsyncExitStack() as held:
            entries = [await held.enter_async_context(limits.admitted(tokens)) for limits in self.limits]
            for entry in entries:
                # It may have waited for the next limits: its minute begins when it is called.
                entry[0] = entries[-1][0]

            def used(tokens: int) -> None:
                for entry in entries:
                    entry[1] = tokens

            yield used


class Limiter:
    """Puts limits around chat models; those of one name are shared by all that it is asked for."""

    def __init__(self) -> None:
        self.known: dict[Allowed, Limits] = {}

    def __call__(self, model: ChatModel, *allowed: Allowed) -> Limited:
        """MODEL within all of some limits."""
        return Limited(model, *(self.known.setdefault(each, Limits(*each[1:])) for each in allowed))


class Retrying(Around):
    """A chat model that is asked again when a call fails in passing, ever more slowly.

    BASE: seconds before the second try, doubled for each further one, up to CAP; half of it is random, so that calls
    which failed together do not come back together.
    """

    def __init__(
        self,
        model: ChatModel,
        attempts: int = 8,
        base: float = 1.0,
        cap: float = 30.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(model)
        self.attempts = attempts
        pause = wait_exponential(base / 2, cap / 2) + wait_random_exponential(base / 2, cap / 2)

        def wait(state: RetryCallState) -> float:
            failed = state.outcome and state.outcome.exception()
            return max(pause(state), getattr(failed, "after", None) or 0.0)  # as long as the server asks to, at least

        self._retrying = AsyncRetrying(
            sleep, stop_after_attempt(attempts), wait, retry_if_exception_type(TransientError), reraise=True
        )

    async def complete(self, messages: Messages, decoding: Decoding = Decoding(), *, seed: int = 0) -> Completion:
        """The answer of the first try that succeeds, or an EndpointError; see ChatModel."""
        try:
            # A copy: calls that run at the same time count their tries apart.
            return await self._retrying.copy()(self.model.complete, messages, decoding, seed=seed)
        except TransientError as last:
            name = self.model.fingerprint
            where = f" at {name['base_url']}" if "base_url" in name else ""
            raise EndpointError(
                f"model {name.get('model', '?')!r}{where} failed {self.attempts} times in a row, last: {last}; "
                "when it works again, the same command continues, with --resume where it has it"
            ) from last
