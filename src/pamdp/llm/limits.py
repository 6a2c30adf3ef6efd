"""How often and how many at once a chat model is called, and what happens when a call fails in passing.

Owns waiting. Knows nothing of what is asked. The clock and the sleep are given, so that tests need no time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from pamdp.errors import EndpointError
from pamdp.llm.chat import Around, ChatModel, Completion, Decoding, TransientError
from pamdp.types import Message

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]

WINDOW = 60.0
"""Seconds that "per minute" looks back."""


class Limited(Around):
    """A chat model that is called within limits; calls wait in the order in which they came.

    Args:
      model: is called.
      concurrency: most calls under way at once.
      requests_per_minute, tokens_per_minute: most in any minute; None is no limit. A call's tokens are estimated
        before it (prompt and longest answer), and counted as they were after it.
      clock, sleep: seconds, and waiting for some.
      shared: limits that this model's calls keep as well, together with those of other models.
    """

    def __init__(
        self,
        model: ChatModel,
        concurrency: int = 16,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        shared: Limited | None = None,
    ) -> None:
        super().__init__(model)
        self.requests, self.tokens = requests_per_minute, tokens_per_minute
        self.clock, self.sleep, self.concurrency, self.shared = clock, sleep, concurrency, shared
        self._slots = asyncio.Semaphore(concurrency)
        self._door = asyncio.Lock()
        self._past: deque[list[float]] = deque()

    async def complete(
        self, messages: Sequence[Message], decoding: Decoding = Decoding(), *, seed: int = 0
    ) -> Completion:
        """The model's answer, when its turn has come; see ChatModel."""
        async with self._admitted(_estimate(messages, decoding)) as entries:
            answer = await self.model.complete(messages, decoding, seed=seed)
            if used := answer.prompt_tokens + answer.completion_tokens:
                for entry in entries:
                    entry[1] = used
            return answer

    @asynccontextmanager
    async def _admitted(self, tokens: float) -> AsyncIterator[list[list[float]]]:
        """Hold a place for a call of so many TOKENS within all limits; its entries."""
        async with self._slots:
            entry = await self._admit(tokens)
            if self.shared is None:
                yield [entry]
                return
            async with self.shared._admitted(tokens) as entries:
                # It may have waited there: its minute begins when it is called.
                entry[0] = self.clock()
                yield [entry, *entries]

    async def _admit(self, tokens: float) -> list[float]:
        """Wait until a call of so many TOKENS fits into the last minute; its entry there."""
        # A single call above the limit would wait for ever.
        tokens = min(tokens, self.tokens or tokens)
        async with self._door:
            while not self._fits(tokens):
                await self.sleep(max(self._past[0][0] + WINDOW - self.clock(), 1e-3))
            entry = [self.clock(), tokens]
            self._past.append(entry)
            return entry

    def _fits(self, tokens: float) -> bool:
        now = self.clock()
        while self._past and self._past[0][0] + WINDOW <= now:
            self._past.popleft()
        if self.requests is not None and len(self._past) >= self.requests:
            return False
        if self.tokens is None or not self._past:
            return True
        return sum(used for _, used in self._past) + tokens <= self.tokens


class Retrying(Around):
    """A chat model that is asked again when a call fails in passing, ever more slowly.

    Args:
      model: is called.
      attempts: most tries of one call.
      base, cap: seconds before the second try, doubled for each further one, up to the cap; half of it is random, so
        that calls which failed together do not come back together.
      sleep: waits.
      seed: of the randomness.
    """

    def __init__(
        self,
        model: ChatModel,
        attempts: int = 8,
        base: float = 1.0,
        cap: float = 30.0,
        sleep: Sleep = asyncio.sleep,
        seed: int = 0,
    ) -> None:
        super().__init__(model)
        self.attempts, self.base, self.cap, self.sleep = attempts, base, cap, sleep
        self._random = random.Random(seed)

    async def complete(
        self, messages: Sequence[Message], decoding: Decoding = Decoding(), *, seed: int = 0
    ) -> Completion:
        """The answer of the first try that succeeds; see ChatModel.

        Raises:
          EndpointError: every try failed.
        """
        for attempt in range(self.attempts):
            try:
                return await self.model.complete(messages, decoding, seed=seed)
            except TransientError as error:
                last = error
            if attempt + 1 < self.attempts:
                await self.sleep(self._pause(attempt, last.after))
        name = self.model.fingerprint
        where = f" at {name['base_url']}" if "base_url" in name else ""
        raise EndpointError(
            f"model {name.get('model', '?')!r}{where} failed {self.attempts} times in a row, last: {last}; "
            "when it works again, the same command continues, with --resume where it has it"
        ) from last

    def _pause(self, attempt: int, after: float | None) -> float:
        pause: float = min(self.cap, self.base * 2**attempt)
        return max(after or 0.0, pause * (0.5 + 0.5 * self._random.random()))


def _estimate(messages: Sequence[Message], decoding: Decoding) -> float:
    """Tokens of a call before it is made: four characters each, and the longest answer."""
    return sum(len(m.content) for m in messages) / 4 + decoding.max_tokens
