"""Persona recoverability: whether somebody who reads what a user said can tell who it is, among ten.

Owns the question, three who answer it, and accuracy by turn. Knows nothing of how the dialogues came about. Ties share
the point: one of n equally likely personas is right once in n times. An answer that could not be had is left out.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from pamdp.async_bridge import run, together
from pamdp.env.profile import Profiler
from pamdp.errors import AnswerError
from pamdp.evaluation.records import grouped
from pamdp.evaluation.significance import Estimate, cluster_bootstrap
from pamdp.evaluation.simulator import content_words
from pamdp.evaluation.transcripts import Transcript
from pamdp.models.backbone import Backbone
from pamdp.models.packed_branches import reply_log_probs
from pamdp.models.packed_contexts import Group, pack, run_layers
from pamdp.progress import Progress
from pamdp.prompts.render import load, render
from pamdp.seeds import seed_of
from pamdp.types import History, Message, Persona

Question = tuple[History, Sequence[Persona]]
"""Who of the candidates is the user of a history?"""

Scores = Sequence[float] | None
"""One number for each candidate, the highest for the likeliest; None where none could be had."""

Recogniser = Callable[[Sequence[Question]], list[Scores]]
"""Tells users apart: how likely each candidate is to be the user, for each question."""

ROW = 1200
"""Tokens of messages that are read in one pass."""


@dataclass(frozen=True, slots=True)
class Told:
    """One answer after so many messages of the user; it is what a file holds, so that accuracy can be told anew.

    `hit` is the share of the point that the own persona has; None where no answer could be had.
    """

    recogniser: str
    user_id: str
    messages: int
    hit: float | None


def recognise(talks: Sequence[Transcript], name: str, recogniser: Recogniser, others: int = 9) -> list[Told]:
    """Ask a recogniser called NAME after every message of a user, who keeps so many OTHERS over all turns."""
    pool = list(dict.fromkeys(talk.persona for talk in talks))
    asked = list[tuple[str, int, Question]]()
    for talk in talks:
        candidates = [talk.persona, *draw_others(talk.persona, talk.dialogue_id, pool, others)]
        for k in range(sum(m.role == "user" for m in talk.messages)):
            asked.append((talk.user_id, k + 1, (talk.history(k), candidates)))
    found = recogniser([question for _, _, question in asked])
    return [Told(name, user, k, _hit(x)) for (user, k, _), x in zip(asked, found, strict=True)]


def accuracy(told: Sequence[Told], *, n: int = 10_000) -> list[tuple[Estimate, int]]:
    """How often one recogniser was right after each message of the user, and how many answers could not be had there.

    Intervals are over users, from N resamples.
    """
    rows = grouped(told, lambda t: t.messages).values()
    found = [cluster_bootstrap([t.hit for t in row], [t.user_id for t in row], n=n) for row in rows]
    return [(e, len(row) - e.n) for e, row in zip(found, rows, strict=True)]


def _hit(scores: Scores) -> float | None:
    """Whether the first candidate is the likeliest; ties share the point."""
    if scores is None:
        return None
    best = [i for i, score in enumerate(scores) if score == max(scores)]
    return (0 in best) / len(best)


def draw_others(persona: Persona, dialogue_id: str, pool: Sequence[Persona], count: int) -> list[Persona]:
    """COUNT personas of POOL beside a dialogue's own, always the same; a ValueError where there are not so many."""
    known = [other for other in pool if other != persona]
    if len(known) < count:
        raise ValueError(f"{count} other personas are asked for, and there are {len(known)}; ask for fewer")
    return random.Random(seed_of(0, "others", dialogue_id)).sample(known, count)


def overlap(text: str, candidates: Sequence[Persona]) -> list[float]:
    """Words that a text shares with each persona; a word weighs the more the fewer candidates have it.

    score_i = Σ over shared words of ln(n / n_word)
    """
    said, known = content_words(text), [content_words(persona.text) for persona in candidates]
    count = {word: sum(word in words for words in known) for word in said}
    return [sum(math.log(len(known) / count[word]) for word in sorted(said & words)) for words in known]


def by_words(questions: Sequence[Question]) -> list[Scores]:
    """A Recogniser that needs no model: the words that the user shares with a persona."""
    return [overlap(" ".join(_said(history)), candidates) for history, candidates in questions]


def by_profile(questions: Sequence[Question], profiler: Profiler) -> list[Scores]:
    """A Recogniser by the words that the inferred profile shares with a persona; no finding tells nobody apart."""

    async def one(history: History, candidates: Sequence[Persona]) -> Scores:
        try:
            profile = await profiler.infer(history)
        except AnswerError:
            return None
        return overlap(profile.text, candidates)

    return run(together(one(*question) for question in questions))


@dataclass(slots=True)
class Likelihood:
    """log p of the user's messages under each persona: Σ over messages m of log p(m | ω), by a bare backbone.

    Messages are read one by one, without what they answer: that is the same for all candidates, and costs four times
    as much.
    """

    backbone: Backbone
    _known: dict[tuple[Persona, str], float] = field(default_factory=dict)

    def scores(self, questions: Sequence[Question]) -> list[Scores]:
        """A Recogniser."""
        self.read((w, m) for history, candidates in questions for w in candidates for m in _said(history))
        return [[sum(self.of(persona, _said(history))) for persona in known] for history, known in questions]

    def read(self, pairs: Iterable[tuple[Persona, str]]) -> None:
        """Read messages under personas and keep their likelihoods: many after one persona cost little more than one."""
        asked = grouped(pairs, lambda pair: pair[0])
        with Progress("reading", len(asked)) as bar:
            for persona, found in asked.items():
                self.of(persona, [message for _, message in found])
                bar.advance()

    @torch.no_grad()
    def of(self, persona: Persona, messages: Sequence[str]) -> list[float]:
        """Log p(m | ω) of each message, in nats."""
        chat = self.backbone.chat
        new = [m for m in dict.fromkeys(messages) if (persona, m) not in self._known]
        while new:
            now, ids, room = list[str](), list[list[int]](), ROW
            while new and (not ids or room > 0):
                now.append(new.pop())
                ids.append(chat.reply(now[-1]))
                room -= len(ids[-1])
            for message, value in zip(now, self._read(persona, ids), strict=True):
                self._known[persona, message] = value
        return [self._known[persona, m] for m in messages]

    def _read(self, persona: Persona, ids: Sequence[Sequence[int]]) -> list[float]:
        who = render("recognise_as", persona=persona.text or "somebody who keeps to themselves")
        context = self.backbone.chat.history((Message("user", load("recognise_ask")),), who).ids
        row = pack([Group(context, ids)], self.backbone.device)
        with self.backbone.adapter(None):
            states = run_layers(self.backbone, row, None, 0, -1)
            before = [states[at] for at, _ in row.predicts]
            found = reply_log_probs(self.backbone, before, row.replies)
            sums: list[float] = torch.stack([each.sum() for each in found]).tolist()
            return sums


def _said(history: History) -> list[str]:
    return [m.content for m in history if m.role == "user"]
