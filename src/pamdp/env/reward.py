"""The reward P_r of eq. 16: a judge compares the reply with a reference reply u_g.

Owns the comparison and what becomes of a failed one. Knows nothing of how the judge decides, nor who writes u_g
(references.py, or whoever gives a function).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice

from pamdp.async_bridge import done, run, settle, start, together
from pamdp.errors import AnswerError
from pamdp.judges.base import Case, Judge, LiveJudge, Verdict, verdicts_of
from pamdp.types import History, TimeStep

Given = Sequence[str] | Awaitable[Sequence[str]]
References = Mapping[History, Sequence[str]] | Callable[[Sequence[TimeStep]], Sequence[Given]]
"""u_g of each history, one or more; or who writes them for some moments, at once or to be waited for."""


@dataclass(slots=True)
class Reward:
    """Judges replies against references u_g; several references are averaged.

    SOFT: the expected reward under the verdict's probabilities (same mean, less variance) instead of the verdict's.
    """

    judge: Judge
    references: References
    soft: bool = True

    def __call__(self, steps: Sequence[TimeStep], replies: Sequence[str]) -> list[float | None]:
        """r_t of each reply: +1 preferred, -1 not, +0.5 tie; None where the judge failed or ω_t is not known."""
        return [future.result()[0] for future in self.begin(steps, [[reply] for reply in replies])]

    def begin(self, steps: Sequence[TimeStep], groups: Sequence[Sequence[str]]) -> list[Future[list[float | None]]]:
        """Rewards of the alternatives to each step: those of a LiveJudge are under way, those of others are there."""
        known = self.references
        given = known(steps) if callable(known) else [known[step.history] for step in steps]
        if isinstance(self.judge, LiveJudge):
            return [start(self._live(self.judge, *each)) for each in zip(steps, groups, given, strict=True)]
        settled = run(together(map(self._settled, given)))
        cases = [_cases(*each) for each in zip(steps, groups, settled, strict=True)]
        verdicts = iter(verdicts_of(self.judge, [case for group in cases for same in group for case in same]))
        return [done(self._rewards(group, verdicts)) for group in cases]

    async def _live(self, judge: LiveJudge, step: TimeStep, group: Sequence[str], given: Given) -> list[float | None]:
        cases = _cases(step, group, await self._settled(given))
        return self._rewards(cases, iter(await judge.verdicts([case for same in cases for case in same])))

    async def _settled(self, given: Given) -> Sequence[str]:
        try:
            return await settle(given)
        except AnswerError:
            return ()

    def _rewards(self, cases: Sequence[Sequence[Case]], verdicts: Iterator[Verdict | None]) -> list[float | None]:
        """The mean over each reply's own cases, whose verdicts come next."""
        out = list[float | None]()
        for same in cases:
            found = [v for v in islice(verdicts, len(same)) if v is not None]
            values = [v.expected_reward if self.soft else v.reward for v in found]
            out.append(sum(values) / len(values) if values else None)
        return out


def _cases(step: TimeStep, group: Sequence[str], references: Sequence[str]) -> list[list[Case]]:
    """The comparisons of each reply to a step; none where ω_t is not known."""
    known = references if step.known else ()
    return [[Case(step.privileged, step.history, reply, reference) for reference in known] for reply in group]
