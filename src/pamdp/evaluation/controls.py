"""The controls beside every result: another user's action, the mean action.

Owns what a control's row is, when it passes and its file. Knows nothing of how a control is run.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pamdp.evaluation.significance import Estimate, cluster_bootstrap
from pamdp.files import write_json
from pamdp.stored import read_record


@dataclass(frozen=True, slots=True)
class Control:
    """One control under one judge (or in reference NLL, which then stands as the judge).

    Attributes:
      name: short name, such as `own action − another user's action`.
      what: what is compared, in one sentence.
      judge: who measured it; controls are drawn on one axis per judge.
      mean: the mean per state; above 0 speaks for the method.
      low: lower end of the 95 % interval; None where there are fewer than two users.
      high: upper end.
      n: states.
      passed: the interval lies above 0.
    """

    name: str
    what: str
    judge: str
    mean: float
    low: float | None
    high: float | None
    n: int
    passed: bool

    @classmethod
    def measure(
        cls, values: Sequence[float], clusters: Sequence[Hashable], *, name: str, what: str, judge: str
    ) -> Control:
        """The control's row from one number per state, and the user of each.

        Args:
          values: for example judged score of the own action's reply minus that of the control's reply.

        Raises:
          DataError: as `cluster_bootstrap`.
        """
        found = cluster_bootstrap(values, clusters)
        low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
        return cls(name, what, judge, found.value, low, high, found.n, found.sign > 0)

    @property
    def verdict(self) -> str:
        """A control that did not pass has failed; but where its interval holds 0, nothing was shown either way."""
        if self.passed:
            return "passed"
        return "failed" if self.high is not None and self.high < 0 else "not shown"

    @property
    def estimate(self) -> Estimate:
        """The row's numbers; the count of users is not kept in the file and reads 0."""
        low, high = (math.nan if end is None else end for end in (self.low, self.high))
        return Estimate(self.mean, low, high, self.n, 0)


@dataclass(frozen=True, slots=True)
class ControlsFile:
    """What the file of a run's controls holds."""

    rows: tuple[Control, ...]


def write_controls(path: Path, rows: Sequence[Control]) -> None:
    """Write `{"rows": [...]}`, atomically."""
    write_json(path, asdict(ControlsFile(tuple(rows))))


def read_controls(path: Path) -> tuple[Control, ...]:
    """Read what `write_controls` wrote.

    Raises:
      DataError: not such a file; the message names the field.
    """
    return read_record(path, ControlsFile).rows
