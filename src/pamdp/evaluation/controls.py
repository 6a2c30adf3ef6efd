"""The controls beside every result: another user's action, the mean action.

Owns what a control's row is, when it passes and its file. Knows nothing of how a control is run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pamdp.errors import DataError
from pamdp.evaluation.records import brief, read_utf8
from pamdp.evaluation.significance import Estimate, cluster_bootstrap
from pamdp.files import write_atomic


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
        cls,
        values: Sequence[float],
        clusters: Sequence[Hashable],
        *,
        name: str,
        what: str,
        judge: str,
        seed: int = 0,
    ) -> Control:
        """The control's row from one number per state.

        Args:
          values: for example judged score of the own action's reply minus that of the control's reply.
          clusters: the user of each state.
          name: short name.
          what: one sentence.
          judge: who measured.
          seed: of the resamples.

        Raises:
          DataError: as `cluster_bootstrap`.
        """
        found = cluster_bootstrap(values, clusters, seed=seed)
        low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
        return cls(name, what, judge, found.value, low, high, found.n, low is not None and low > 0)

    @property
    def verdict(self) -> str:
        """A control that did not pass has failed; but where its interval holds 0, nothing was shown either way."""
        if self.passed:
            return "passed"
        return "failed" if self.high is not None and self.high < 0 else "not shown"

    @property
    def estimate(self) -> Estimate:
        """The row's numbers; the count of users is not kept in the file and reads 0."""
        low = math.nan if self.low is None else self.low
        high = math.nan if self.high is None else self.high
        return Estimate(self.mean, low, high, self.n, 0)


@dataclass(frozen=True, slots=True)
class _File:
    rows: tuple[Control, ...]


def write_controls(path: Path, rows: Sequence[Control]) -> None:
    """Write `{"rows": [...]}`, atomically."""
    write_atomic(path, json.dumps({"rows": [asdict(row) for row in rows]}, ensure_ascii=False, indent=2) + "\n")


def read_controls(path: Path) -> tuple[Control, ...]:
    """Read what `write_controls` wrote.

    Raises:
      DataError: not such a file; the message names the field.
    """
    try:
        return TypeAdapter(_File).validate_json(read_utf8(path), strict=True).rows
    except ValidationError as error:
        raise DataError(f"not a file of controls: {brief(error)}", path) from error
