"""Simulated against recorded messages of users, one by one (paper, appendix F): do they suit the persona.

Owns the pairs of messages, who compares them, and the shares with intervals. At every turn of a record the simulated
user answers the recorded reply to the recorded history, so that both messages stand in the same place. A comparison
that could not be had is left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pamdp.async_bridge import run, settle, together
from pamdp.env.user import User
from pamdp.errors import AnswerError
from pamdp.evaluation.recoverability import Likelihood
from pamdp.evaluation.significance import UNKNOWN, Estimate, cluster_bootstrap
from pamdp.judges.base import Outcome
from pamdp.judges.pairwise import parse_verdict
from pamdp.llm.ask import Asking, T, ask
from pamdp.llm.chat import ChatModel
from pamdp.prompts.render import render, transcript
from pamdp.seeds import seed_of
from pamdp.types import Dialogue, History, Message, Persona

_YES = re.compile(r"\[\[(yes|no)\]\]", re.I)


@dataclass(frozen=True, slots=True)
class Place:
    """One turn of a record, and what the simulated user says there.

    Attributes:
      history: the record up to the reply that is answered.
      recorded, simulated: the messages; `simulated` is None where the user had no usable answer.
    """

    user_id: str
    dialogue_id: str
    persona: Persona
    history: History
    recorded: str
    simulated: str | None


@dataclass(frozen=True, slots=True)
class Compared:
    """What an auditor says of one place; it is what a file holds, so that shares can be told anew.

    Attributes:
      said: whether there is a simulated message.
      aligned, recorded: whether the simulated and the recorded message suit the persona; see Auditor.
      better: whether the simulated message wins.
    """

    user_id: str
    said: bool
    aligned: float | None = None
    recorded: float | None = None
    better: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Imitation:
    """What the comparison comes to.

    Attributes:
      auditor: who compared.
      aligned: share of simulated messages that suit the persona.
      recorded: the same share of recorded messages, where the auditor can say it of one message alone; the ceiling.
      won: share of places where the simulated message is the better one; `lost` where the recorded one is.
      places: turns of records; `masked` of them without an answer or without a verdict on alignment.
    """

    auditor: str
    aligned: Estimate
    recorded: Estimate
    won: Estimate
    lost: Estimate
    places: int
    masked: int


class Auditor(Protocol):
    """Who compares."""

    @property
    def name(self) -> str:
        """What results call it."""
        ...

    def aligned(self, places: Sequence[Place]) -> list[tuple[float | None, float | None]]:
        """Whether the simulated and the recorded message suit the persona: 1, 0, or None where nobody can say."""
        ...

    def better(self, places: Sequence[Place]) -> list[Outcome | None]:
        """Whether the simulated message wins against the recorded one."""
        ...


def places_of(
    dialogues: Sequence[Dialogue], user: Callable[[Dialogue], User], progress: Callable[[int], None]
) -> list[Place]:
    """Have every user answer every recorded reply but the last; all at the same time.

    Raises:
      EndpointError: the simulator cannot be reached.
    """

    async def one(dialogue: Dialogue, t: int) -> Place:
        reply = dialogue.turns[t].reply or ""
        try:
            after = await settle(user(dialogue).answer(dialogue.history(t), reply))
        except AnswerError:
            after = None
        said = None if after is None else after[-1].content
        progress(1)
        before = (*dialogue.history(t), Message("assistant", reply))
        return Place(dialogue.user_id, dialogue.id, dialogue.persona, before, dialogue.turns[t + 1].user, said)

    return run(together(one(d, t) for d in dialogues for t in range(len(d.turns) - 1)))


def compare_places(places: Sequence[Place], auditor: Auditor) -> list[Compared]:
    """Have AUDITOR compare the messages of every place that has two.

    Raises:
      EndpointError: the auditor cannot be reached.
    """
    said = [place for place in places if place.simulated is not None]
    found = zip(auditor.aligned(said), auditor.better(said), strict=True)
    out = []
    for place in places:
        if place.simulated is None:
            out.append(Compared(place.user_id, False))
        else:
            (aligned, recorded), better = next(found)
            out.append(Compared(place.user_id, True, aligned, recorded, better))
    return out


def imitation(compared: Sequence[Compared], auditor: str, *, n: int = 10_000) -> Imitation:
    """Shares with intervals over users.

    Args:
      auditor: who compared, by name.
      n: bootstrap resamples.
    """

    def share(values: Sequence[float | None]) -> Estimate:
        kept = [(x, place.user_id) for x, place in zip(values, compared, strict=True) if x is not None]
        return cluster_bootstrap([x for x, _ in kept], [user for _, user in kept], n=n) if kept else UNKNOWN

    def verdict(outcome: Outcome) -> Estimate:
        return share([None if c.better is None else float(c.better == outcome) for c in compared])

    mine = [c.aligned for c in compared]
    return Imitation(
        auditor, share(mine), share([c.recorded for c in compared]), verdict("win"), verdict("loss"), len(compared),
        mine.count(None),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LikelihoodAuditor:
    """Needs no language model that follows instructions.

    A message suits its persona where it is likelier under it than, in the mean, under other people's; the better one of
    two messages is the one that gains more by it, per character. This sees persona, not style or sense.

    Attributes:
      others: gives other people's personas for a place.
    """

    reader: Likelihood
    others: Callable[[Place], Sequence[Persona]]
    name: str = "likelihood"

    def aligned(self, places: Sequence[Place]) -> list[tuple[float | None, float | None]]:
        """See Auditor."""
        asked: dict[Persona, dict[str, None]] = {}
        for p in places:
            for persona in (p.persona, *self.others(p)):
                asked.setdefault(persona, {}).update(dict.fromkeys((p.simulated or "", p.recorded)))
        self.reader.read(asked)
        return [(float(self._gain(p, p.simulated or "") > 0), float(self._gain(p, p.recorded) > 0)) for p in places]

    def better(self, places: Sequence[Place]) -> list[Outcome | None]:
        """See Auditor."""
        out: list[Outcome | None] = []
        for p in places:
            a, b = (self._gain(p, text) / max(len(text), 1) for text in (p.simulated or "", p.recorded))
            out.append("tie" if a == b else "win" if a > b else "loss")
        return out

    def _gain(self, place: Place, text: str) -> float:
        others = [self.reader.of(persona, [text])[0] for persona in self.others(place)]
        return self.reader.of(place.persona, [text])[0] - sum(others) / len(others)


@dataclass(frozen=True, slots=True)
class ChatAuditor:
    """Asks a language model; the better message in both orders, and a tie where they disagree."""

    model: ChatModel
    how: Asking = Asking(max_tokens=200)
    name: str = "judge"

    def aligned(self, places: Sequence[Place]) -> list[tuple[float | None, float | None]]:
        """See Auditor; the recorded message is what the simulated one is held against, so nothing is said of it."""

        async def one(place: Place) -> tuple[float | None, float | None]:
            values = {"recorded": place.recorded, "simulated": place.simulated or ""}
            return await _or_none(self._ask("audit_aligned", place, _yes, **values)), None

        return run(together(one(place) for place in places))

    def better(self, places: Sequence[Place]) -> list[Outcome | None]:
        """See Auditor."""
        swapped: dict[Outcome, Outcome] = {"win": "loss", "loss": "win", "tie": "tie"}

        async def one(place: Place) -> Outcome | None:
            mine, theirs = place.simulated or "", place.recorded
            first = await _or_none(self._ask("audit_better", place, parse_verdict, a=mine, b=theirs))
            second = await _or_none(self._ask("audit_better", place, parse_verdict, a=theirs, b=mine))
            if first is None or second is None:
                return None
            return first if first == swapped[second] else "tie"

        return run(together(one(place) for place in places))

    async def _ask(self, prompt: str, place: Place, parse: Callable[[str], T], **values: str) -> T:
        question = render(
            prompt, persona=place.persona.text, history=transcript(place.history, "Person", "Friend"), **values
        )
        return await ask(
            self.model, [Message("user", question)], parse, replace(self.how, seed=seed_of(question)),
            reminder="audit_reminder",
        )  # fmt: skip


async def _or_none(answer: Coroutine[object, object, T]) -> T | None:
    try:
        return await answer
    except AnswerError:
        return None


def _yes(text: str) -> float:
    found = {word.lower() for word in _YES.findall(text)}
    if len(found) != 1:
        raise AnswerError(f"{len(found)} verdicts in an answer")
    return float(found == {"yes"})
