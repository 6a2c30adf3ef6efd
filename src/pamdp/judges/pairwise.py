"""A language model as judge (paper, appendix C): which of two replies suits a person better.

Owns the question and the reading of the verdict. Knows nothing of endpoints, retries of calls and limits: it is given a
chat model. All cases are asked at the same time; how many calls run at once is the chat model's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from pamdp.async_bridge import run, together
from pamdp.errors import JudgeError
from pamdp.judges.base import Case, Outcome, Verdict, swap
from pamdp.llm.ask import Asking, Masked, ask, each, only
from pamdp.llm.chat import ChatModel
from pamdp.prompts.render import render, transcript
from pamdp.types import Message

_VERDICT = re.compile(r"\[\[([ABC])\]\]", re.I)
_OUTCOMES: dict[str, Outcome] = {"A": "win", "B": "loss", "C": "tie"}
FIRST = "(this is the first message)"
"""What stands in a question for the history before a first message."""
_VERDICTS = {"win": Verdict(1.0, 0.0), "loss": Verdict(0.0, 1.0), "tie": Verdict(0.0, 0.0, 1.0)}


def parse_verdict(text: str) -> Outcome:
    """The verdict of an answer: [[A]], [[B]] or [[C]], in capitals or not; an AnswerError as of `only`."""
    return _OUTCOMES[only(_VERDICT, text, "verdict")]


@dataclass(slots=True)
class PairwiseJudge:
    """Asks a chat model; its verdicts are certain, so a verdict's reward is its expected reward.

    BOTH_ORDERS: ask twice, with the replies exchanged; a tie, worth +0.5, where the orders disagree.
    """

    name: str
    model: ChatModel
    both_orders: bool = False
    how: Asking = Asking()
    masked: Masked = field(default_factory=Masked, init=False, compare=False)

    @property
    def fingerprint(self) -> dict[str, str]:
        """The model's, the prompt's and how it is asked."""
        asked = self.how.fingerprint(self.model, "judge_pair", "judge_pair_reminder")
        return {"name": self.name, **asked, "both_orders": str(self.both_orders)}

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        """One verdict for each case; all are asked at the same time, and EndpointError says that nobody answers."""
        verdicts = [verdict for verdict in run(self.verdicts(cases, progress)) if verdict is not None]
        if missing := len(cases) - len(verdicts):
            raise JudgeError(f"{self.name}: no verdict in {missing} of {len(cases)} cases (so far: {self.masked})")
        return verdicts

    async def verdicts(
        self, cases: Sequence[Case], progress: Callable[[int], None] | None = None
    ) -> list[Verdict | None]:
        """What `judge` gives, or None where no verdict could be read."""
        return await each(cases, self._verdict, progress, partial(self.masked.add, self.name))

    async def _verdict(self, case: Case) -> Verdict:
        if not self.both_orders:
            return _VERDICTS[await self._ask(case)]
        first, second = [_VERDICTS[x] for x in await together([self._ask(case), self._ask(swap(case))])]
        return first if (first.p_a, first.p_b) == (second.p_b, second.p_a) else _VERDICTS["tie"]

    async def _ask(self, case: Case) -> Outcome:
        profile, personality = (text or "nothing yet" for text in (case.persona.profile, case.persona.personality))
        said = {"history": transcript(case.history[:-1]) or FIRST, "query": case.history[-1].content}
        question = render("judge_pair", profile=profile, personality=personality, **said, a=case.a, b=case.b)
        about = (case.persona.text, case.a, case.b, *(m.content for m in case.history))
        return await ask(
            self.model, [Message("user", question)], parse_verdict, self.how, *about, reminder="judge_pair_reminder",
            whole=True,
        )  # fmt: skip
