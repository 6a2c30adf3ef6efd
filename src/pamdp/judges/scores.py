"""A language model that scores single replies: how well one suits the person, and whether it keeps to a preference.

Owns both questions and the reading of their answers. The 1 to 5 scale over turns is ALOE's metric, the categories of
failing a preference are PrefEval's; the words of the questions are our own. PrefEval asks four questions in four calls,
here they are one call. Knows nothing of endpoints, retries of calls and limits: it is given a chat model.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

from pamdp.async_bridge import run
from pamdp.errors import AnswerError
from pamdp.judges.pairwise import FIRST
from pamdp.llm.ask import Asking, Masked, ask, each, only
from pamdp.llm.chat import ChatModel
from pamdp.prompts.render import render, transcript
from pamdp.types import History, Message, Persona

T = TypeVar("T")
Category = Literal["followed", "unaware", "hallucinated", "inconsistent", "unhelpful"]
CATEGORIES: tuple[Category, ...] = ("followed", "unaware", "hallucinated", "inconsistent", "unhelpful")
PROMPTS = ("judge_score", "judge_score_reminder", "judge_adherence", "judge_adherence_reminder")
_SCORE = re.compile(r"\[\[([1-5])\]\]")
_CHECK = re.compile(r"^\W*(mentions|invents|violates|helps)\W*:\W*(yes|no)\b", re.I | re.M)


@dataclass(frozen=True, slots=True)
class ReplyCase:
    """One reply to a history, and to whom."""

    persona: Persona
    history: History
    reply: str


@dataclass(frozen=True, slots=True)
class Adherence:
    """What a reply does with a preference."""

    mentions: bool  # it shows that it takes a preference into account
    invents: bool  # what it takes the preference to be is something else
    violates: bool  # it goes against the preference
    helps: bool  # it deals with the message

    @property
    def category(self) -> Category:
        """PrefEval's category: a reply that helps nobody is that first; then it matters whether and why it violates."""
        if not self.helps:
            return "unhelpful"
        if not self.violates:
            return "followed"
        if not self.mentions:
            return "unaware"
        return "hallucinated" if self.invents else "inconsistent"


def parse_score(text: str) -> int:
    """The rating of an answer: [[1]] to [[5]]; an AnswerError as of `only`."""
    return int(only(_SCORE, text, "rating"))


def parse_adherence(text: str) -> Adherence:
    """The four answers, each on a line of its own; AnswerError where one is missing, or is both yes and no."""
    found: dict[str, set[bool]] = {}
    for name, answer in _CHECK.findall(text):
        found.setdefault(name.lower(), set()).add(answer.lower() == "yes")
    if len(found) != 4 or any(len(answers) != 1 for answers in found.values()):
        raise AnswerError(f"{len(found)} of 4 checks in an answer")
    return Adherence(**{name: answers.pop() for name, answers in found.items()})


@dataclass(frozen=True, slots=True)
class ReplyScorer:
    """Asks a chat model about single replies; None where no answer could be read, EndpointError where none came."""

    name: str
    model: ChatModel
    how: Asking = Asking()
    masked: Masked = field(default_factory=Masked, init=False, compare=False)

    @property
    def fingerprint(self) -> dict[str, str]:
        """The model's, the prompts' and how it is asked."""
        found = self.how.fingerprint(self.model, *PROMPTS)
        return {"name": self.name, "prompts": found.pop("prompt"), **found}

    def fit(self, replies: Sequence[ReplyCase], progress: Callable[[int], None] | None = None) -> list[int | None]:
        """How well each reply suits its person, 1 to 5 (ALOE)."""
        return self._each(replies, partial(self._ask, "judge_score", parse_score, "personality"), progress)

    def adherence(
        self, replies: Sequence[ReplyCase], progress: Callable[[int], None] | None = None
    ) -> list[Adherence | None]:
        """What each reply does with the preference, which is the person's `personality` (PrefEval)."""
        return self._each(replies, partial(self._ask, "judge_adherence", parse_adherence, "preference"), progress)

    def _each(
        self,
        replies: Sequence[ReplyCase],
        score: Callable[[ReplyCase], Awaitable[T]],
        progress: Callable[[int], None] | None,
    ) -> list[T | None]:
        return run(each(replies, score, progress, partial(self.masked.add, self.name)))

    async def _ask(self, prompt: str, parse: Callable[[str], T], known: str, said: ReplyCase) -> T:
        """KNOWN: what the prompt calls the person's `personality`."""
        person = said.persona
        words = {"profile": person.profile or "nothing", known: person.personality or "nothing", "reply": said.reply}
        before, query = transcript(said.history[:-1]) or FIRST, said.history[-1].content
        question = render(prompt, **words, history=before, query=query)
        about = (prompt, person.text, said.reply, *(m.content for m in said.history))
        return await ask(
            self.model, [Message("user", question)], parse, self.how, *about, reminder=f"{prompt}_reminder", whole=True
        )
