"""Chat models for tests and dry runs: answers from a function, failures from a seed.

Owns the injection of faults. Knows nothing of networks: a fault is what the caller of a real endpoint would see.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from pamdp.llm.chat import Around, ChatModel, Completion, Decoding, TransientError
from pamdp.types import Message

Answer = Callable[[Sequence[Message], int], str]
"""From messages and seed to a text."""

ERRORS = {"timeout": "no answer within 60 s", "429": "status 429", "500": "status 500", "cut": "connection failed"}
TEXTS = {"garbage": "\x1b[0m}{ ]] lorem", "empty": "", "refusal": "I'm sorry, but I can't help with that."}
FAULTS = (*ERRORS, *TEXTS)
"""Names of all faults: those of a call, then those of an answer."""


class ScriptedChat:
    """Answers by a function.

    Args:
      answer: writes the answer.
      name: its name in fingerprints.
      delay: seconds that a call takes.
      sleep: waits; tests give their own.
    """

    def __init__(
        self,
        answer: Answer,
        name: str = "scripted",
        delay: float = 0.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.answer, self.name, self.delay, self.sleep = answer, name, delay, sleep
        self.asked: list[tuple[Message, ...]] = []

    @property
    def fingerprint(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "scripted", "model": self.name}

    async def complete(
        self, messages: Sequence[Message], decoding: Decoding = Decoding(), *, seed: int = 0
    ) -> Completion:
        """The function's answer; words count as tokens. See ChatModel."""
        self.asked.append(tuple(messages))
        await self.sleep(self.delay)
        text = self.answer(messages, seed).strip()
        return Completion(text, sum(len(m.content.split()) for m in messages), len(text.split()))


class Faulty(Around):
    """A chat model that fails at random, by name and rate.

    Args:
      model: answers where nothing fails.
      rates: fault -> share of the calls; see FAULTS.
      seed: of the faults.
    """

    def __init__(self, model: ChatModel, rates: Mapping[str, float], seed: int = 0) -> None:
        if unknown := set(rates) - set(FAULTS):
            raise ValueError(f"no fault {sorted(unknown)}; there are: {', '.join(FAULTS)}")
        super().__init__(model)
        self.rates, self.random = dict(rates), random.Random(seed)
        self.seen: Counter[str] = Counter()

    async def complete(
        self, messages: Sequence[Message], decoding: Decoding = Decoding(), *, seed: int = 0
    ) -> Completion:
        """An answer or a fault; see ChatModel."""
        draw = self.random.random()
        fault = ""
        for name, rate in self.rates.items():
            draw -= rate
            if draw < 0:
                fault = name
                break
        self.seen[fault or "none"] += 1
        if fault in ERRORS:
            raise TransientError(ERRORS[fault])
        if fault in TEXTS:
            return Completion(TEXTS[fault])
        return await self.model.complete(messages, decoding, seed=seed)
