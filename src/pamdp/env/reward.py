"""The reward P_r of eq. 16: a judge compares the reply with a reference reply u_g.

Owns the comparison and what becomes of a failed one. Knows nothing of how u_g was written or how the judge decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pamdp.errors import JudgeError
from pamdp.judges.base import Case, Judge
from pamdp.types import History, TimeStep

References = Mapping[History, Sequence[str]]


@dataclass(slots=True)
class Reward:
    """Judges replies against references; several references are averaged.

    Attributes:
      judge: decides.
      references: u_g, one or more for each history.
      soft: the expected reward under the verdict's probabilities (same mean, less variance) instead of the verdict's.
      failures: how many verdicts could not be had so far.
    """

    judge: Judge
    references: References
    soft: bool = True
    failures: int = field(default=0)

    def __call__(self, steps: Sequence[TimeStep], replies: Sequence[str]) -> list[float | None]:
        """r_t of each reply: +1 preferred, -1 not, +0.5 tie; None where the judge failed."""
        cases, owner = [], []
        for i, (step, reply) in enumerate(zip(steps, replies, strict=True)):
            for reference in self.references[step.history]:
                cases.append(Case(step.privileged, step.history, reply, reference))
                owner.append(i)
        values: list[list[float]] = [[] for _ in steps]
        for i, verdict in zip(owner, self._verdicts(cases), strict=True):
            if verdict is not None:
                values[i].append(verdict)
        return [sum(v) / len(v) if v else None for v in values]

    def _verdicts(self, cases: Sequence[Case]) -> list[float | None]:
        try:
            verdicts = self.judge.judge(cases)
        except JudgeError:
            if len(cases) == 1:
                self.failures += 1
                return [None]
            # One bad case must not mask the others: ask one by one.
            return [self._verdicts([case])[0] for case in cases]
        return [v.expected_reward if self.soft else v.reward for v in verdicts]
