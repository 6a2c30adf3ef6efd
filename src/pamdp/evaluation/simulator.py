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
from importlib.resources import files

from pamdp.env.simulated import breaks_role, sentences
from pamdp.evaluation.records import grouped
from pamdp.evaluation.transcripts import MessageNote, Transcript

STOP = frozenset((files("pamdp.evaluation") / "stop_words.txt").read_text(encoding="utf-8").split())
"""Words that tell nothing of a person."""
SIMILAR = 0.8
"""Share of common words (Jaccard) from which a message repeats another."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What some simulated dialogues come to.

    Attributes:
      told, leaked: mean share of the profile's sentences told by each turn, and beyond what the pace allows.
      role_breaks: share of messages that give the part away.
      repetitions: share of messages, first ones left out, that nearly repeat an earlier one of the same user.
      messages, stock: how many are in the user's own words (shares are of these) or stand in where there were none.
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


def audit(talks: Sequence[Transcript], pace: float = 1.0, opened: bool = False) -> Audit:
    """Measure simulated dialogues; turns are averaged over the dialogues that have them.

    PACE sentences of the profile may be told in a turn, and one in the first; first messages that were OPENED were
    asked of whoever plays, too, and not taken from a record.
    """
    told = list[tuple[int, float, float]]()  # turn, told by it, leaked by it
    breaks = repeats = later = messages = stock = answers = 0
    rejected = Counter[str]()
    for talk in talks:
        said = [m.content for m in talk.messages if m.role == "user"]
        facts = [words for words in map(content_words, sentences(talk.persona.profile)) if words]
        known, own = frozenset[str](), list[str]()
        for t, (text, about) in enumerate(zip(said, talk.said or [MessageNote()] * len(said), strict=True)):
            rejected.update(about.rejected)
            answers += (len(about.rejected) + (not about.stock)) * bool(talk.said and (opened or t))
            stock += about.stock
            if not about.stock:
                known |= content_words(text)
                breaks += breaks_role(text)
                later += bool(own)
                repeats += any(_jaccard(text, other) >= SIMILAR for other in own)
                own.append(text)
            if facts:
                share = sum(2 * len(fact & known) > len(fact) for fact in facts) / len(facts)
                told.append((t, share, max(0.0, share - min(1.0, (1 + int(t * pace)) / len(facts)))))
        messages += len(own)
    if not messages:
        raise ValueError("no dialogue has a message of the user")
    turns = grouped(told, lambda one: one[0]).values()
    means = [tuple(sum(one[i] for one in turn) / len(turn) for turn in turns) for i in (1, 2)]
    shares = breaks / messages, repeats / max(later, 1)
    return Audit(means[0], means[1], *shares, messages, stock, answers, dict(sorted(rejected.items())))


def content_words(text: str) -> frozenset[str]:
    """Words of a text that may tell something of a person, in lower case; a plural is its singular."""
    words = re.findall(r"[^\W_]+", text.lower())
    return frozenset(w[:-1] if len(w) > 3 and w.endswith("s") else w for w in words if w not in STOP)


def _jaccard(a: str, b: str) -> float:
    x, y = set(re.findall(r"\w+", a.lower())), set(re.findall(r"\w+", b.lower()))
    return len(x & y) / max(len(x | y), 1)
