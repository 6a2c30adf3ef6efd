"""What a judge is: who prefers which of two replies, with a probability; and judges of one's own.

Owns cases, verdicts and what becomes of a failure. Knows nothing of how a judge decides. A judge that cannot decide
raises JudgeError; a failure is masked by whoever asked, never scored.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar, runtime_checkable

from pamdp.async_bridge import run
from pamdp.errors import ConfigError, JudgeError
from pamdp.registry import JUDGES
from pamdp.types import History, Persona

Outcome = Literal["win", "loss", "tie"]
J = TypeVar("J", bound="type | Callable[[Case], Verdict | float]")


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

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        """One verdict for each case, in order.

        Args:
          progress: called with how many more cases are decided.

        Raises:
          JudgeError: a verdict could not be had.
        """


@runtime_checkable
class LiveJudge(Protocol):
    """A judge whose verdicts have to be waited for; None is one that could not be had."""

    async def verdicts(
        self, cases: Sequence[Case], progress: Callable[[int], None] | None = None
    ) -> list[Verdict | None]:
        """One verdict for each case, in order."""


def verdicts_of(
    judge: Judge, cases: Sequence[Case], progress: Callable[[int], None] | None = None
) -> list[Verdict | None]:
    """One verdict for each case, in order; None where none could be had, which costs no other."""
    if isinstance(judge, LiveJudge):
        return run(judge.verdicts(cases, progress))
    try:
        return list(judge.judge(cases, progress))
    except JudgeError:
        return [None] if len(cases) == 1 else [verdicts_of(judge, [case])[0] for case in cases]


def in_role(judge: Judge, role: Literal["reward", "evaluation"]) -> dict[str, str]:
    """A judge's fingerprint as results record it: a reader must be able to tell who rewarded from who graded."""
    return {"role": role, **judge.fingerprint}


def forget(judge: object) -> None:
    """Make a judge (or a part of one) answer as a new one would, where it has a method `forget`.

    Scores differ in their last digits with the replies beside them: so a resumed run gives an uninterrupted one's.
    """
    getattr(judge, "forget", lambda: None)()


def swap(case: Case) -> Case:
    """The same case with the replies in the other order."""
    return replace(case, a=case.b, b=case.a)


class FunctionJudge:
    """A function of one case as a judge: it gives a verdict or P(A is preferred), or raises JudgeError.

    Raises:
      ConfigError: the function stands in no file, so nothing could tell it from another of its name.
    """

    def __init__(self, name: str, function: Callable[[Case], Verdict | float]) -> None:
        self.name, self.function = name, function
        try:
            source = inspect.getsource(function)
        except (OSError, TypeError) as error:
            raise ConfigError(f"judge {name!r}: write it in a file, so that its source can identify it") from error
        self.fingerprint = {"name": name, "source": hashlib.sha256(source.encode()).hexdigest()[:12]}

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        """The function's verdict on each case; see Judge."""
        out = []
        for case in cases:
            found = self.function(case)
            if isinstance(found, int | float) and 0 <= found <= 1:
                found = Verdict(float(found), 1 - float(found))
            if not isinstance(found, Verdict):
                raise JudgeError(f"{self.name}: {found} is no probability")
            out.append(found)
            if progress is not None:
                progress(1)
        return out


def register_judge(name: str) -> Callable[[J], J]:
    """The decorator of a judge of one's own: NAME is then accepted wherever those of the package are.

    It stands on a class as `Judge` describes, which is made without arguments, or on a function as of FunctionJudge.

    Raises:
      ConfigError: when the judge is asked for: the class is no judge, or calls itself something else.
    """

    def register(made: J) -> J:
        def make(_: object) -> Judge:
            judge = made() if isinstance(made, type) else FunctionJudge(name, made)
            if not isinstance(judge, Judge) or judge.name != name:
                raise ConfigError(
                    f"judge {name!r}: give {made.__name__} a name {name!r}, a fingerprint and a method judge(cases)"
                )
            return judge

        JUDGES.add(name, make)
        return made

    return register
