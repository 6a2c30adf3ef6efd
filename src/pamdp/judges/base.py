"""What a judge is: who prefers which of two replies, with a probability.

Owns cases, verdicts and both-orders judging. Knows nothing of how a judge decides. A judge that cannot decide raises
JudgeError; a failure is masked by whoever asked, never scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

from pamdp.types import History, Persona

Outcome = Literal["win", "loss", "tie"]


@dataclass(frozen=True, slots=True)
class Case:
    """One question to a judge: which of two replies to a history fits this person better."""

    persona: Persona
    history: History
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Probabilities that A is preferred, that B is, and that neither is; they sum to 1."""

    p_a: float
    p_b: float
    p_tie: float = 0.0

    @property
    def outcome(self) -> Outcome:
        """The most probable verdict, from A's side; an exact balance is a tie."""
        if self.p_tie >= max(self.p_a, self.p_b) or self.p_a == self.p_b:
            return "tie"
        return "win" if self.p_a > self.p_b else "loss"

    @property
    def reward(self) -> float:
        """+1 where A is preferred, -1 where B is, +0.5 for a tie (paper, section 4.1)."""
        return {"win": 1.0, "loss": -1.0, "tie": 0.5}[self.outcome]

    @property
    def expected_reward(self) -> float:
        """E[reward] under the verdict's probabilities: the same mean as sampling verdicts, with less variance."""
        return self.p_a - self.p_b + 0.5 * self.p_tie


@runtime_checkable
class Judge(Protocol):
    """Decides cases. `fingerprint` identifies the judge in every result."""

    name: str

    @property
    def fingerprint(self) -> dict[str, str]:
        """What identifies this judge: kind, model, revision, prompt."""
        ...

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        """One verdict for each case, in order.

        Raises:
          JudgeError: a verdict could not be had.
        """
        ...


def in_role(judge: Judge, role: Literal["reward", "evaluation"]) -> dict[str, str]:
    """A judge's fingerprint as results record it: a reader must be able to tell who rewarded from who graded."""
    return {"role": role, **judge.fingerprint}


@runtime_checkable
class Remembering(Protocol):
    """Something that answers faster because of what it was asked before."""

    def forget(self) -> None:
        """Drop what earlier questions left behind."""
        ...


def forget(judge: object) -> None:
    """Make a judge (or a part of one) answer as a new one would.

    A score that was found beside other replies differs in its last digits from one that was found alone. A round that
    starts with a judge that remembers nothing gives the same rewards in a resumed run as in an uninterrupted one.
    """
    if isinstance(judge, Remembering):
        judge.forget()


def swap(case: Case) -> Case:
    """The same case with the replies in the other order."""
    return replace(case, a=case.b, b=case.a)


def both_orders(judge: Judge, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
    """Verdicts averaged over both orders of the replies, so that a position bias cancels."""
    first = judge.judge(cases, progress)
    second = judge.judge([swap(case) for case in cases], progress)
    return [
        Verdict((x.p_a + y.p_b) / 2, (x.p_b + y.p_a) / 2, (x.p_tie + y.p_tie) / 2)
        for x, y in zip(first, second, strict=True)
    ]
