"""What calls cost: by role, calls, failures, tokens, and money where prices are known.

Owns the counts. Knows nothing of models. A run writes it beside its metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from threading import Lock
from typing import Literal

from pydantic import TypeAdapter

from pamdp.files import Json
from pamdp.llm.chat import Around, Completion, Decoding, Messages

Role = Literal["simulator", "profiler", "judge", "reference"]


@dataclass(frozen=True, slots=True)
class Price:
    """Money for a million tokens, in any one currency; None is unknown."""

    prompt: float | None = None
    completion: float | None = None

    def of(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Money for so many tokens, or None where a price is unknown."""
        if self.prompt is None or self.completion is None:
            return None
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@dataclass(slots=True)
class Entry:
    """Counts of one role; failed calls are among the calls."""

    calls: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    money: float | None = None


@dataclass(slots=True)
class Ledger:
    """Counts of all roles."""

    entries: dict[str, Entry] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def add(self, role: Role, answer: Completion | None, price: Price = Price()) -> None:
        """One call: its answer, or None where it failed."""
        if answer is None:
            self.join({role: Entry(calls=1, failed=1)})
            return
        tokens = answer.prompt_tokens, answer.completion_tokens
        self.join({role: Entry(1, 0, *tokens, price.of(*tokens))})

    def join(self, entries: Mapping[str, Entry]) -> None:
        """Calls that were counted elsewhere."""
        with self._lock:
            for role, more in entries.items():
                had = self.entries.setdefault(role, Entry())
                had.calls += more.calls
                had.failed += more.failed
                had.prompt_tokens += more.prompt_tokens
                had.completion_tokens += more.completion_tokens
                if more.money is not None:
                    had.money = (had.money or 0.0) + more.money

    def take(self) -> dict[str, Entry]:
        """What was counted since the last time, for another account to join; here nothing is left of it."""
        with self._lock:
            taken = {role: replace(entry) for role, entry in self.entries.items()}
            self.entries.clear()
            return taken

    def to_json(self) -> dict[str, Json]:
        """One object for each role."""
        # A copy: calls under way in the background may add a role while this is written.
        return {role: asdict(entry) for role, entry in list(self.entries.items())}

    def load(self, record: Mapping[str, Json]) -> None:
        """Go on from what `to_json` gave."""
        self.entries |= TypeAdapter(dict[str, Entry]).validate_python(record)

    def scalars(self) -> dict[str, float]:
        """Numbers for a run's metrics: role_calls, role_tokens, role_money."""
        out: dict[str, float] = {}
        for role, entry in self.entries.items():
            out[f"{role}_calls"] = float(entry.calls)
            out[f"{role}_tokens"] = float(entry.prompt_tokens + entry.completion_tokens)
            if entry.money is not None:
                out[f"{role}_money"] = entry.money
        return out


@dataclass(eq=False)
class Metered(Around):
    """A chat model whose calls are counted, on the account of a role."""

    ledger: Ledger
    role: Role
    price: Price = Price()

    async def complete(self, messages: Messages, decoding: Decoding = Decoding(), *, seed: int = 0) -> Completion:
        """The model's answer; see ChatModel."""
        answer = None
        try:
            answer = await self.model.complete(messages, decoding, seed=seed)
        finally:
            self.ledger.add(self.role, answer, self.price)
        return answer
