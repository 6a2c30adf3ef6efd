"""P_ω of eq. 16: what can be told about a user from a history h_t, and from nothing later.

Owns the question, the reading of the answer and the rule that a finding cites the messages it rests on. Knows nothing
of who the user really is. A finding that cites nothing, or a message that is not there, is dropped: it was made up.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from pamdp.errors import AnswerError
from pamdp.llm.ask import ask
from pamdp.llm.chat import ChatModel, Decoding
from pamdp.prompts.render import load, render, transcript
from pamdp.seeds import seed_of
from pamdp.types import History, Message, Persona

_LINE = re.compile(r"^\W{0,3}\[\s*(\d+(?:\s*,\s*\d+)*)\s*\]\s*[:.-]?\s*(\S.*)$")
_NONE = re.compile(r"^\W*\[?\s*none\s*\]?\W*$", re.I)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that can be told about a user.

    Attributes:
      text: what.
      turns: the 0-based turns whose user messages it rests on; never empty.
    """

    text: str
    turns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """What can be told about a user so far; without findings, nothing can."""

    findings: tuple[Finding, ...] = ()

    @property
    def persona(self) -> Persona:
        """ω_t: the findings as one paragraph."""
        return Persona(" ".join(f"{f.text.rstrip('. ')}." for f in self.findings))


def parse_profile(text: str, turns: int, most: int) -> Profile:
    """Findings of an answer of lines such as "[1, 3] likes tea"; "[none]" is a profile without any.

    Args:
      turns: how many user messages there are to cite.
      most: most findings kept.

    Raises:
      AnswerError: no line is a finding and none says that there is none.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matches = [match for match in map(_LINE.match, lines) if match]
    if not matches and not any(_NONE.match(line) for line in lines):
        raise AnswerError("no line cites the messages it rests on")
    found: dict[str, Finding] = {}
    for match in matches:
        cited = tuple(sorted({int(number) - 1 for number in match[1].split(",")}))
        if cited[0] >= 0 and cited[-1] < turns:
            found.setdefault(match[2].lower(), Finding(match[2], cited))
    return Profile(tuple(found.values())[:most])


class Profiler:
    """Asks a chat model.

    Args:
      model: is asked.
      attempts: most answers asked for where one cannot be read.
      temperature: 0 lets answers be remembered.
      max_tokens: longest answer.
      most: most findings.
      seed: of the draws.
    """

    def __init__(
        self,
        model: ChatModel,
        attempts: int = 3,
        temperature: float = 0.0,
        max_tokens: int = 200,
        most: int = 8,
        seed: int = 0,
    ) -> None:
        self.model, self.attempts, self.most, self.seed = model, attempts, most, seed
        self.decoding = Decoding(temperature, max_tokens)

    @property
    def fingerprint(self) -> dict[str, str]:
        """The model's, the prompt's and how it is asked."""
        prompt = hashlib.sha256((load("profile") + load("profile_reminder")).encode()).hexdigest()[:12]
        return {
            "role": "profiler", **self.model.fingerprint, "prompt": prompt,
            "temperature": f"{self.decoding.temperature:g}", "most": str(self.most), "seed": str(self.seed),
        }  # fmt: skip

    async def infer(self, history: History) -> Profile:
        """ω_t = P_ω(h_t); may be empty.

        Raises:
          AnswerError: no answer could be read.
          EndpointError: the model cannot be reached.
        """
        turns = sum(m.role == "user" for m in history)
        question = render("profile", history=transcript(history, numbered=True), most=str(self.most))
        return await ask(
            self.model, [Message("user", question)], lambda text: parse_profile(text, turns, self.most),
            decoding=self.decoding, seed=seed_of(self.seed, question), attempts=self.attempts,
            reminder="profile_reminder",
        )  # fmt: skip
