"""Simulated against recorded messages of users, one by one (paper, appendix F): do they suit the persona.

Owns the pairs of messages, who compares them, and the shares with intervals. At every turn of a record the simulated
user answers the recorded reply to the recorded history, so that both messages stand in the same place. A comparison
that could not be had is left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pamdp.async_bridge import run, settle, together
from pamdp.env.user import User
from pamdp.errors import AnswerError
from pamdp.evaluation.recoverability import Likelihood, draw_others
from pamdp.evaluation.significance import Estimate, cluster_bootstrap
from pamdp.judges.base import Outcome
from pamdp.judges.pairwise import parse_verdict
from pamdp.llm.ask import Asking, T, ask
from pamdp.llm.chat import ChatModel
from pamdp.prompts.render import render, transcript
from pamdp.seeds import seed_of
from pamdp.types import Dialogue, History, Message, Persona

_YES = re.compile(r"\[\[(yes|no)\]\]", re.I)
_SWAPPED: dict[Outcome, Outcome] = {"win": "loss", "loss": "win", "tie": "tie"}


@dataclass(frozen=True, slots=True)
class Place:
    """One turn of a record: h_t with the reply that is answered, and both answers; no usable one is None."""

    user_id: str
    dialogue_id: str
    persona: Persona
    history: History
    recorded: str
    simulated: str | None


@dataclass(frozen=True, slots=True)
class Compared:
    """What an auditor says of one place; it is what a file holds, so that shares can be told anew.

    `aligned` and `recorded`: whether the simulated and the recorded message suit the persona; None where nobody can
    say. `better`: whether the simulated message wins against the recorded one.
    """

    user_id: str
    aligned: float | None = None
    recorded: float | None = None
    better: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Imitation:
    """What the comparison comes to.

    Attributes:
      aligned: share of simulated messages that suit the persona.
      recorded: the same share of recorded messages, where the auditor can say it of one message alone; the ceiling.
      won, lost: share of places where the simulated message is the better one, and where the recorded one is.
      places, masked: turns of records, and those of them without an answer or without a verdict on alignment.
    """

    auditor: str
    aligned: Estimate
    recorded: Estimate
    won: Estimate
    lost: Estimate
    places: int
    masked: int


Auditor = Callable[[Sequence[Place]], list[Compared]]
"""Says what there is to say of places that have both messages."""


def places_of(
    dialogues: Sequence[Dialogue], user: Callable[[Dialogue], User], progress: Callable[[int], None]
) -> list[Place]:
    """Have every user answer every recorded reply but the last, all at the same time; an EndpointError ends it."""

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
    """Have AUDITOR compare the messages of every place that has two; an EndpointError ends it."""
    found = iter(auditor([place for place in places if place.simulated is not None]))
    return [Compared(p.user_id) if p.simulated is None else next(found) for p in places]


def imitation(compared: Sequence[Compared], auditor: str, *, n: int = 10_000) -> Imitation:
    """Shares of what AUDITOR said, with intervals over users from N resamples."""
    mine, better, users = [c.aligned for c in compared], [c.better for c in compared], [c.user_id for c in compared]
    won, lost = ([None if x is None else x == outcome for x in better] for outcome in ("win", "loss"))
    columns = (mine, [c.recorded for c in compared], won, lost)
    aligned, recorded, wins, losses = (cluster_bootstrap(values, users, n=n) for values in columns)
    return Imitation(auditor, aligned, recorded, wins, losses, len(compared), mine.count(None))


def by_likelihood(places: Sequence[Place], reader: Likelihood, pool: Sequence[Persona], others: int) -> list[Compared]:
    """An Auditor that needs no language model that follows instructions.

    A message suits its persona where it is likelier under it than, in the mean, under so many OTHERS of POOL; the
    better one of two messages is the one that gains more by it, per character. This sees persona, not style or sense.
    """
    who = [(p, _texts(p), (p.persona, *draw_others(p.persona, p.dialogue_id, pool, others))) for p in places]
    reader.read((persona, text) for _, texts, people in who for persona in people for text in texts)
    out = []
    for place, texts, people in who:
        gains = list[float]()
        for text in texts:
            own, *rest = (reader.of(persona, [text])[0] for persona in people)
            gains.append(own - sum(rest) / len(rest))
        a, b = (gain / max(len(text), 1) for gain, text in zip(gains, texts, strict=True))
        better: Outcome = "tie" if a == b else "win" if a > b else "loss"
        out.append(Compared(place.user_id, float(gains[0] > 0), float(gains[1] > 0), better))
    return out


def by_chat(places: Sequence[Place], model: ChatModel, how: Asking = Asking(max_tokens=200)) -> list[Compared]:
    """An Auditor that asks a language model, of all places at the same time; a tie where both orders disagree.

    The recorded message is what the simulated one is held against, so nothing is said of whether it suits the persona.
    """

    async def asked(prompt: str, place: Place, parse: Callable[[str], T], **values: str) -> T | None:
        question = render(
            prompt, persona=place.persona.text, history=transcript(place.history, "Person", "Friend"), **values
        )
        try:
            return await ask(
                model, [Message("user", question)], parse, replace(how, seed=seed_of(question)),
                reminder="audit_reminder", whole=True,
            )  # fmt: skip
        except AnswerError:
            return None

    async def one(place: Place) -> Compared:
        mine, theirs = _texts(place)
        aligned = await asked("audit_aligned", place, _yes, recorded=theirs, simulated=mine)
        first = await asked("audit_better", place, parse_verdict, a=mine, b=theirs)
        second = await asked("audit_better", place, parse_verdict, a=theirs, b=mine)
        better: Outcome | None = None
        if first is not None and second is not None:
            better = first if first == _SWAPPED[second] else "tie"
        return Compared(place.user_id, aligned, None, better)

    return run(together(one(place) for place in places))


def _texts(place: Place) -> tuple[str, str]:
    return place.simulated or "", place.recorded


def _yes(text: str) -> float:
    found = {word.lower() for word in _YES.findall(text)}
    if len(found) != 1:
        raise AnswerError(f"{len(found)} verdicts in an answer")
    return float(found == {"yes"})
