"""What is stored of an evaluation: what a judge said of one reply against another, and what a control came to.

Owns both records and their files. Every success rate is computed from judgements, so that it can be computed again.
Knows nothing of judges at work, of rates and of reports, nor of how a control is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import ConfigDict

from pamdp.errors import DataError
from pamdp.evaluation.significance import Estimate, cluster_bootstrap
from pamdp.files import write_json
from pamdp.judges.base import Outcome, Verdict
from pamdp.stored import read_record, read_records, write_records

K = TypeVar("K")
T = TypeVar("T")

State = tuple[str, str, int]
"""(user, dialogue, turn): the history that was answered."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One comparison of two replies to one state, seen from `method`, averaged over both orders of the replies.

    Attributes:
      method, baseline: who wrote the reply that is graded, and the other one; for example `PAMDP` and `Vanilla`.
      turn, sample: 0-based turn, and which of several replies to the same state, from 0.
      p_win, p_loss, p_tie: probability that the method's reply is preferred, the baseline's, neither; they sum to 1.
      outcome: the verdict, from the method's side.
      kind: `eval`, or the name of the control that the comparison belongs to.
      masked: the judge gave no verdict; nothing of this record but its place is ever counted.
      orders: the verdicts with the method's reply shown first and shown second, both from the method's side.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    method: str
    baseline: str
    judge: str
    user_id: str
    dialogue_id: str
    turn: int
    sample: int
    p_win: float
    p_loss: float
    p_tie: float
    outcome: Outcome
    kind: str = "eval"
    masked: bool = False
    orders: tuple[Outcome, Outcome] | None = None

    def __post_init__(self) -> None:
        """Refuse, by a DataError, what would silently bend a rate."""
        if self.turn < 0 or self.sample < 0:
            raise DataError(f"turn and sample count from 0, got {self.turn} and {self.sample}")
        p = (self.p_win, self.p_loss, self.p_tie)
        if not self.masked and not (min(p) >= 0 and math.isclose(sum(p), 1, abs_tol=1e-3)):
            raise DataError(f"the probabilities of win, loss and tie must sum to 1, got {p}")

    @classmethod
    def of(
        cls,
        first: Verdict | None,
        second: Verdict | None,
        *,
        method: str,
        baseline: str,
        judge: str,
        state: State,
        sample: int = 0,
        kind: str = "eval",
    ) -> Judgement:
        """The record of verdicts with the method's reply as A and as B, as the judge gave them (not turned round).

        None where the judge failed; it masks the record.
        """
        place = (method, baseline, judge, *state, sample)
        if first is None or second is None:
            return cls(*place, 0.0, 0.0, 0.0, "tie", kind, masked=True)
        back = Verdict(second.p_b, second.p_a, second.p_tie)
        both = Verdict((first.p_a + back.p_a) / 2, (first.p_b + back.p_b) / 2, (first.p_tie + back.p_tie) / 2)
        orders = (first.outcome, back.outcome)
        return cls(*place, both.p_a, both.p_b, both.p_tie, both.outcome, kind, orders=orders)

    @property
    def state(self) -> State:
        """Where the reply was asked for."""
        return self.user_id, self.dialogue_id, self.turn

    @property
    def comparison(self) -> tuple[str, str, str, str, int, int]:
        """What was compared, whoever judged it."""
        return self.method, self.baseline, *self.state, self.sample

    @property
    def cluster(self) -> str:
        """The unit of resampling: all turns of all dialogues of one person go along."""
        return self.user_id or self.dialogue_id

    @property
    def score(self) -> int:
        """+1 win, 0 tie, −1 loss: the mean of it is r_w (Eq. 15)."""
        return {"win": 1, "tie": 0, "loss": -1}[self.outcome]

    @property
    def soft(self) -> float:
        """p_win − p_loss, in [−1, 1]: the mean of verdicts drawn from the judge's own probabilities."""
        return self.p_win - self.p_loss


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Items by key, both in the order in which they first appear."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def require_unique(items: Iterable[T], key: Callable[[T], object]) -> None:
    """Refuse, by a DataError that names it, a record whose key another one has: it would count twice."""
    for same in grouped(items, key).values():
        if len(same) > 1:
            raise DataError(f"stands twice: {same[0]}", fix="keep one of the two records")


def graded(judgements: Iterable[Judgement]) -> list[Judgement]:
    """The judgements that rates are made of, without those of controls; a DataError where one stands twice."""
    found = [j for j in judgements if j.kind == "eval"]
    require_unique(found, _place)
    return found


def write_judgements(path: Path, judgements: Sequence[Judgement]) -> None:
    """Write JSON lines, atomically, unless a comparison stands twice (DataError)."""
    require_unique(judgements, _place)
    write_records(path, judgements)


def read_judgements(path: Path) -> list[Judgement]:
    """Read what `write_judgements` wrote; a DataError where it is something else or a comparison stands twice."""
    judgements = read_records(path, Judgement)
    require_unique(judgements, _place)
    return judgements


def _place(j: Judgement) -> tuple[object, ...]:
    return (j.kind, j.judge, *j.comparison)


@dataclass(frozen=True, slots=True)
class Control:
    """One control under one judge (or in reference NLL, which then stands as the judge).

    Attributes:
      name, what: such as `own action − another user's action`, and what is compared, in one sentence.
      judge: who measured it; controls are drawn on one axis per judge.
      mean: the mean of n states; above 0 speaks for the method.
      low, high: ends of the 95 % interval; None where there are fewer than two users.
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
        """The control's row from one number per state, such as a difference of judged scores, and the user of each."""
        found = cluster_bootstrap(values, clusters)
        low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
        return cls(name, what, judge, found.value, low, high, found.n, found.sign > 0)

    @property
    def verdict(self) -> str:
        """A control that did not pass has failed; but where its interval holds 0, nothing was shown either way."""
        return {1: "passed", 0: "not shown", -1: "failed"}[self.estimate.sign]

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
    """Read what `write_controls` wrote; a DataError where it is something else."""
    return read_record(path, ControlsFile).rows
