"""P_h of eq. 16: a user played by a language model, who shows who they are bit by bit.

Owns the part that is played, what may be told when, and which answers break the part. Knows nothing of rewards. The
simulated user knows its whole profile; the assistant sees only what it says.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from dataclasses import KW_ONLY, dataclass
from functools import cache
from typing import Literal

from pamdp.calls_config import EndpointConfig
from pamdp.env.profile import Profiler
from pamdp.errors import AnswerError
from pamdp.llm.ask import Asking, ask, readable, unquoted
from pamdp.llm.chat import ChatModel
from pamdp.prompts.render import load, render
from pamdp.registry import CHAT_MODELS, USERS
from pamdp.types import Dialogue, History, Message, Persona

Difficulty = Literal["cooperative", "reserved", "topic-changing"]

PROMPTS = (
    "user", "user_cooperative", "user_reserved", "user_topic_changing", "user_open", "user_may", "user_keep",
    "user_turn_away", "user_reminder", "user_stuck",
)  # fmt: skip
LONGEST = 800
"""Characters of the longest message that still is chat."""
PACE: dict[Difficulty, float] = {"cooperative": 1.0, "reserved": 0.5, "topic-changing": 1.0}
"""Sentences of the profile that may show in a turn, after the first one in the first turn."""
BROKEN = "out of the part"
"""Reason for which an answer that breaks the part is rejected."""
ECHO = "says again what was said"
"""Reason for which an answer that brings nothing new is rejected."""
REPEATED = 0.6
"""Share of a message's runs of four words that may have been said before in the chat, by either side."""

_BREAK = re.compile(
    r"\bas an? (ai|artificial|language model|assistant)\b|\bi(['’]m| am) an? (ai|artificial|language model|assistant)\b"
    r"|\b(my|the) (profile|persona|character) (says|is|states)\b|\brole-?play",
    re.I,
)
_LABEL = re.compile(r"^\s*(?:you|me|user|person|friend|message|my message)\s*:\s*", re.I)
_NEXT = re.compile(r"\n\s*(?:friend|assistant|you|user|person)\s*:", re.I)


def breaks_role(text: str) -> bool:
    """Whether a message gives away that its writer plays a part, or is an assistant."""
    return _BREAK.search(text) is not None


def parse_message(text: str) -> str:
    """A user's message from a model's answer: without name, quotation marks and what others would say next.

    An AnswerError where it is no words, too long for chat, or breaks the part; its reason says which.
    """
    said = unquoted(_NEXT.split(_LABEL.sub("", text), maxsplit=1)[0])
    readable(said, least=2)
    if len(said) > LONGEST:
        raise AnswerError(f"a message of {len(said)} characters", "too long")
    if breaks_role(said):
        raise AnswerError("the user fell out of its part", BROKEN)
    return said


def echoes(text: str, said: History) -> bool:
    """Whether a message says again what was said before, word for word or nearly."""
    mine = _runs(text)
    if not mine:
        return any(_words(text) == _words(message.content) for message in said)
    before = set[tuple[str, ...]]().union(*(_runs(message.content) for message in said))
    return len(mine & before) > REPEATED * len(mine)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _runs(text: str, n: int = 4) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


@dataclass(eq=False)
class SimulatedUser:
    """A user that a chat model plays; what its methods raise says `User`, and EndpointError that nobody answers."""

    key: str
    persona: Persona
    model: ChatModel
    _: KW_ONLY
    opening: str | None = None  # the first message; otherwise the model writes it
    profiler: Profiler | None = None  # infers ω_t; without one ω_t is the whole persona
    difficulty: Difficulty = "cooperative"  # how freely the user tells of itself
    how: Asking = Asking(temperature=0.7, max_tokens=80)

    def __post_init__(self) -> None:
        self.facts = sentences(self.persona.profile)
        self._rejected: dict[int, list[str]] = {}

    @property
    def fingerprint(self) -> dict[str, str]:
        """The model's, the prompts' and how it is played; the same for all users of a run."""
        asked = self.how.fingerprint(self.model, *PROMPTS)
        del asked["seed"]  # each user has its own
        return {"role": "simulator", **asked, "difficulty": self.difficulty}

    async def start(self) -> History:
        """The opening, or a first message about the first thing that may show."""
        return (Message("user", await self._say((), 0) if self.opening is None else self.opening),)

    async def answer(self, history: History, reply: str) -> History:
        """h_{t+1}: the user answers REPLY or turns to something else; it is never the user who ends."""
        said = (*history, Message("assistant", reply))
        turn = sum(m.role == "user" for m in history)
        return (*said, Message("user", await self._say(said, turn)))

    async def profile(self, history: History) -> Persona:
        """ω_t: the persona, or what the profiler tells from h_t."""
        return self.persona if self.profiler is None else await self.profiler.infer(history)

    def rejected(self, turn: int) -> tuple[str, ...]:
        """Why answers of the model were no message of TURN (0-based); a reason for each of them."""
        return tuple(self._rejected.get(turn, ()))

    def may_show(self, turn: int) -> int:
        """How many of the profile's sentences may have shown in messages up to TURN (0-based)."""
        return min(len(self.facts), 1 + int(turn * PACE[self.difficulty]))

    def _hint(self, turn: int) -> str:
        fresh = self.may_show(turn) > (self.may_show(turn - 1) if turn else 0)
        if self.difficulty == "topic-changing" and turn and turn % 2 == 0 and self.facts:
            return render("user_turn_away", fact=self.facts[turn % len(self.facts)])
        return render("user_may", fact=self.facts[self.may_show(turn) - 1]) if fresh else load("user_keep")

    def _say(self, said: History, turn: int) -> Awaitable[str]:
        self._rejected[turn] = []
        part = render(
            "user",
            profile=self.persona.profile or "somebody who keeps to themselves",
            personality=self.persona.personality or "like anybody",
            manner=load(f"user_{self.difficulty.replace('-', '_')}"),
            hint=self._hint(turn),
        )
        # A model of chats goes on in a chat better than it answers a question about one: the friend asks, it answers.
        chat = [Message("assistant" if m.role == "user" else "user", m.content) for m in said]

        def read(text: str) -> str:
            message = parse_message(text)
            if echoes(message, said):
                raise AnswerError(f"{message[:40]!r} was said before", ECHO)
            return message

        return ask(
            self.model, [Message("system", part), Message("user", load("user_open")), *chat], read,
            self.how, self.key, turn or "open", reminder="user_reminder", rejected=self._rejected[turn].append,
        )  # fmt: skip


def sentences(text: str) -> tuple[str, ...]:
    """The sentences of a profile: what can show one by one."""
    return tuple(s.strip() for s in re.split(r"(?<=[.!?;])\s+", text) if s.strip())


@cache
def _embedded() -> ChatModel:
    return CHAT_MODELS["embedded"](EndpointConfig())


@USERS("simulated")
def simulated(dialogue: Dialogue, seed: int) -> SimulatedUser:
    """The user of a record as the package's own model plays it; a run's settings name others (train/env_factory.py)."""
    how = Asking(temperature=0.7, max_tokens=48, seed=seed)
    return SimulatedUser(dialogue.id, dialogue.persona, _embedded(), opening=dialogue.turns[0].user, how=how)
