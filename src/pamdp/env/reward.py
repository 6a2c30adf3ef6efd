"""The reward P_r of eq. 16: a judge compares the reply with a reference reply u_g.

Owns the comparison and what becomes of a failed one. Knows nothing of how the judge decides, nor who writes u_g
(references.py, or whoever gives a function).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from pamdp.async_bridge import done, run, settle, start, together
from pamdp.errors import AnswerError, JudgeError
from pamdp.judges.base import Case, Judge, Verdict
from pamdp.types import History, TimeStep

Given = Sequence[str] | Awaitable[Sequence[str]]
References = Mapping[History, Sequence[str]] | Callable[[Sequence[TimeStep]], Sequence[Given]]
"""u_g of each history, one or more; or who writes them for some moments, at once or to be waited for."""


@runtime_checkable
class LiveJudge(Protocol):
    """A judge whose verdicts have to be waited for; None is one that could not be had."""

    async def verdicts(self, cases: Sequence[Case]) -> list[Verdict | None]:
        """One verdict for each case, in order."""
        ...


@dataclass(slots=True)
class Reward:
    """Judges replies against references; several references are averaged.

    Attributes:
      judge: decides.
      references: u_g, one or more for each history.
      soft: the expected reward under the verdict's probabilities (same mean, less variance) instead of the verdict's.
      failures: how many verdicts and references could not be had so far.
    """

    judge: Judge
    references: References
    soft: bool = True
    failures: int = field(default=0)

    def __call__(self, steps: Sequence[TimeStep], replies: Sequence[str]) -> list[float | None]:
        """r_t of each reply: +1 preferred, -1 not, +0.5 tie; None where the judge failed or ω_t is not known."""
        given = self._given(steps)
        if all(isinstance(g, Sequence) for g in given):
            references = [g for g in given if isinstance(g, Sequence)]
        else:
            references = run(together(self._settled(g) for g in given))
        cases, owner = _cases(steps, replies, references)
        return self._means(len(steps), owner, self._verdicts(cases))

    def begin(self, steps: Sequence[TimeStep], groups: Sequence[Sequence[str]]) -> list[Future[list[float | None]]]:
        """Rewards of the alternatives to each step: those of a LiveJudge are under way, those of others are there."""
        judge = self.judge
        if isinstance(judge, LiveJudge):
            given = self._given(steps)
            return [start(self._live(judge, s, g, r)) for s, g, r in zip(steps, groups, given, strict=True)]
        flat = [(step, reply) for step, group in zip(steps, groups, strict=True) for reply in group]
        rewards = iter(self([step for step, _ in flat], [reply for _, reply in flat]))
        return [done([next(rewards) for _ in group]) for group in groups]

    async def _live(self, judge: LiveJudge, step: TimeStep, group: Sequence[str], given: Given) -> list[float | None]:
        references = await self._settled(given)
        cases, owner = _cases([step] * len(group), group, [references] * len(group))
        verdicts = await judge.verdicts(cases)
        self.failures += verdicts.count(None)
        return self._means(len(group), owner, verdicts)

    def _given(self, steps: Sequence[TimeStep]) -> Sequence[Given]:
        if callable(self.references):
            return self.references(steps)
        return [self.references[step.history] for step in steps]

    async def _settled(self, given: Given) -> Sequence[str]:
        try:
            return await settle(given)
        except AnswerError:
            self.failures += 1
            return ()

    def _means(self, n: int, owner: Sequence[int], verdicts: Sequence[Verdict | None]) -> list[float | None]:
        values: list[list[float]] = [[] for _ in range(n)]
        for i, verdict in zip(owner, verdicts, strict=True):
            if verdict is not None:
                values[i].append(verdict.expected_reward if self.soft else verdict.reward)
        return [sum(v) / len(v) if v else None for v in values]

    def _verdicts(self, cases: Sequence[Case]) -> list[Verdict | None]:
        try:
            return list(self.judge.judge(cases))
        except JudgeError:
            if len(cases) == 1:
                self.failures += 1
                return [None]
            # One bad case must not mask the others: ask one by one.
            return [self._verdicts([case])[0] for case in cases]


def _cases(
    steps: Sequence[TimeStep], replies: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[Case], list[int]]:
    """All comparisons, and the index of the reply that each is about; none where ω_t is not known."""
    cases, owner = list[Case](), list[int]()
    for i, (step, reply) in enumerate(zip(steps, replies, strict=True)):
        for reference in references[i] if step.known else ():
            cases.append(Case(step.privileged, step.history, reply, reference))
            owner.append(i)
    return cases, owner
