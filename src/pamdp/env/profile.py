"""P_ω of eq. 16: what can be told about a user from a history h_t, and from nothing later.

Owns the question, the reading of the answer and the rule that a finding cites the messages it rests on. Knows nothing
of who the user really is. A finding that cites nothing, or a message that is not there, is dropped: it was made up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pamdp.errors import AnswerError
from pamdp.llm.ask import Asking, ask
from pamdp.llm.chat import ChatModel
from pamdp.prompts.render import render, transcript
from pamdp.types import History, Message, Persona

_LINE = re.compile(r"^\W{0,3}\[\s*(\d+(?:\s*,\s*\d+)*)\s*\]\s*[:.-]?\s*(\S.*)$")
_NONE = re.compile(r"^\W*\[?\s*none\s*\]?\W*$", re.I)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that can be told of a user, and the numbers (from 1) of the user's messages that it rests on."""

    text: str
    cited: tuple[int, ...]


def parse_findings(text: str, turns: int, most: int) -> list[Finding]:
    """The findings of an answer of lines such as "[1, 3] likes tea"; "[none]" is an empty list.

    At most MOST are kept, of those that cite some of the TURNS user messages; an AnswerError where no line is a finding
    and none says that there is none.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matches = [match for match in map(_LINE.match, lines) if match]
    if not matches and not any(_NONE.match(line) for line in lines):
        raise AnswerError("no line cites the messages it rests on")
    found: dict[str, Finding] = {}
    for match in matches:
        cited = tuple(int(number) for number in match[1].split(","))
        if all(1 <= number <= turns for number in cited):
            found.setdefault(match[2].lower(), Finding(match[2], cited))
    return list(found.values())[:most]


def as_persona(findings: Sequence[Finding]) -> Persona:
    """Findings as one paragraph."""
    return Persona(" ".join(f"{finding.text.rstrip('. ')}." for finding in findings))


def parse_profile(text: str, turns: int, most: int) -> Persona:
    """The findings of an answer as one paragraph; else as `parse_findings`."""
    return as_persona(parse_findings(text, turns, most))


@dataclass(frozen=True, slots=True)
class Profiler:
    """Asks a chat model for at most so many findings."""

    model: ChatModel
    how: Asking = Asking(max_tokens=200)
    most: int = 8

    @property
    def fingerprint(self) -> dict[str, str]:
        """The model's, the prompt's and how it is asked."""
        asked = self.how.fingerprint(self.model, "profile", "profile_reminder")
        return {"role": "profiler", **asked, "most": str(self.most)}

    async def infer(self, history: History) -> Persona:
        """ω_t = P_ω(h_t); empty where nothing can be told yet; raises what `ask` raises."""
        return as_persona(await self.findings(history))

    async def findings(self, history: History) -> list[Finding]:
        """What ω_t is made of, with the messages that each finding cites; else as `infer`."""
        question = render("profile", history=transcript(history, numbered=True), most=str(self.most))
        read = partial(parse_findings, turns=sum(m.role == "user" for m in history), most=self.most)
        asked = [Message("user", question)]
        return await ask(self.model, asked, read, self.how, question, reminder="profile_reminder")
