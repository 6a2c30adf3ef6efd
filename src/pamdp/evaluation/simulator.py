"""How well simulated users play their part, from what they said alone: leaks, role breaks, repetition.

Owns the measures that need no language model. Knows nothing of who played. A message that breaks the part is rejected
before it is said, so breaks among what was said are few by construction: answers that were rejected are counted beside
them, by reason. A stock message stands in for a user without an answer; it is counted, and is nobody's own words. The
paper's appendix F asks a model whether a message suits the persona; what stands here is beyond it. A sentence of the
profile counts as told when most of its content words were used, so synonyms are missed and chance matches counted:
compare simulators, not absolute values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pamdp.env.simulated import breaks_role, sentences
from pamdp.evaluation.transcripts import MessageNote
from pamdp.types import History, Persona

_STOP = (
    "a an and are as at be been being but by can did do does for from had has have he her hers him his how i in is it "
    "its just like likes me my no not of on or our she so some than that the their them then there they this to too "
    "two up very was we were what when where which who will with you your"
)
STOP = frozenset(_STOP.split())
"""Words that tell nothing of a person."""


@dataclass(frozen=True, slots=True)
class SimulatedDialogue:
    """One simulated dialogue: who was played, all that was said, and how each message of the user came about."""

    persona: Persona
    history: History
    said: tuple[MessageNote, ...] = ()


@dataclass(frozen=True, slots=True)
class Audit:
    """What some simulated dialogues come to.

    Attributes:
      told: mean share of the profile's sentences told by each turn.
      leaked: mean share of them told by each turn beyond what a pace of one sentence a turn allows.
      role_breaks: share of messages that give the part away.
      repetitions: share of messages, first ones left out, that nearly repeat an earlier one of the same user.
      messages: how many there are in the user's own words; the shares are of these.
      stock: how many stand in for a user who had no usable answer.
      answers: how many answers whoever plays the users gave for these messages; none where nobody plays them.
      rejected: reason -> how many of the answers were rejected for it.
    """

    told: tuple[float, ...]
    leaked: tuple[float, ...]
    role_breaks: float
    repetitions: float
    messages: int
    stock: int
    answers: int
    rejected: dict[str, int]


def audit(
    dialogues: Sequence[SimulatedDialogue], pace: float = 1.0, similar: float = 0.8, opened: bool = False
) -> Audit:
    """Measure simulated dialogues; turns are averaged over the dialogues that have them.

    Args:
      pace: sentences of the profile that may be told in a turn; the first may be told in the first one.
      similar: share of common words (Jaccard) from which a message repeats another.
      opened: whether first messages were asked of whoever plays, too, and not taken from a record.

    Raises:
      ValueError: no dialogue has a message of the user.
    """
    told: list[list[float]] = []
    leaked: list[list[float]] = []
    breaks = repeats = later = messages = stock = answers = 0
    rejected = Counter[str]()
    for dialogue in dialogues:
        said = [m.content for m in dialogue.history if m.role == "user"]
        facts = [words for words in map(content_words, sentences(dialogue.persona.profile)) if words]
        known = frozenset[str]()
        own = list[str]()
        for t, text in enumerate(said):
            about = dialogue.said[t] if dialogue.said else MessageNote()
            rejected.update(about.rejected)
            if dialogue.said and (opened or t):
                answers += len(about.rejected) + (not about.stock)
            if about.stock:
                stock += 1
            else:
                known |= content_words(text)
                breaks += breaks_role(text)
                later += bool(own)
                repeats += any(_jaccard(text, other) >= similar for other in own)
                own.append(text)
            if facts:
                share = sum(2 * len(fact & known) > len(fact) for fact in facts) / len(facts)
                allowed = min(1.0, (1 + int(t * pace)) / len(facts))
                _at(told, t).append(share)
                _at(leaked, t).append(max(0.0, share - allowed))
        messages += len(own)
    if not messages:
        raise ValueError("no dialogue has a message of the user")
    shares = breaks / messages, repeats / max(later, 1)
    return Audit(_means(told), _means(leaked), *shares, messages, stock, answers, dict(sorted(rejected.items())))


def content_words(text: str) -> frozenset[str]:
    """Words of a text that may tell something of a person, in lower case; a plural is its singular."""
    words = re.findall(r"[^\W_]+", text.lower())
    return frozenset(w[:-1] if len(w) > 3 and w.endswith("s") else w for w in words if w not in STOP)


def _jaccard(a: str, b: str) -> float:
    x, y = set(re.findall(r"\w+", a.lower())), set(re.findall(r"\w+", b.lower()))
    return len(x & y) / max(len(x | y), 1)


def _at(table: list[list[float]], t: int) -> list[float]:
    while len(table) <= t:
        table.append([])
    return table[t]


def _means(table: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(sum(row) / len(row) if row else 0.0 for row in table)
