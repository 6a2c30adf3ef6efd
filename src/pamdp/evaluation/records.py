"""What a judge said of one reply against another, and the file that keeps it.

Owns `Judgement` and its JSON lines. Knows nothing of judges at work, of rates and of reports: every number that a
report shows about a success rate is computed from these records, so that it can be computed again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pamdp.errors import DataError
from pamdp.files import write_atomic
from pamdp.judges.base import Outcome, Verdict

State = tuple[str, str, int]
"""(user, dialogue, turn): the history that was answered."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One comparison of two replies to one state, seen from `method`, averaged over both orders of the replies.

    Attributes:
      method: who wrote the reply that is graded, for example `PAMDP`.
      baseline: who wrote the other one, for example `Vanilla`.
      judge: name of the judge.
      user_id: whose dialogue it is; users are the independent units of every interval.
      dialogue_id: the dialogue.
      turn: 0-based turn.
      sample: which of several replies to the same state, from 0.
      p_win: probability that the method's reply is preferred; the three probabilities sum to 1.
      p_loss: probability that the baseline's reply is.
      p_tie: probability that neither is.
      outcome: the verdict, from the method's side.
      kind: `eval`, or the name of the control that the comparison belongs to.
      masked: the judge gave no verdict; nothing of this record but its place is ever counted.
      orders: the verdicts with the method's reply shown first and shown second, both from the method's side.

    Raises:
      DataError: a negative turn or sample, or probabilities that are none.
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
        """Refuse what would silently bend a rate."""
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
        """The record of a comparison that was judged in both orders.

        Args:
          first: verdict with the method's reply as A; None where the judge failed, which masks the record.
          second: verdict with the method's reply as B, as the judge gave it (not turned round).
          method: who wrote the graded reply.
          baseline: who wrote the other one.
          judge: name of the judge.
          state: user, dialogue and turn.
          sample: which of several replies to the same state.
          kind: `eval`, or the name of a control.
        """
        user, dialogue, turn = state
        if first is None or second is None:
            return cls(method, baseline, judge, user, dialogue, turn, sample, 0.0, 0.0, 0.0, "tie", kind, masked=True)
        back = Verdict(second.p_b, second.p_a, second.p_tie)
        both = Verdict((first.p_a + back.p_a) / 2, (first.p_b + back.p_b) / 2, (first.p_tie + back.p_tie) / 2)
        return cls(
            method, baseline, judge, user, dialogue, turn, sample, both.p_a, both.p_b, both.p_tie, both.outcome, kind,
            orders=(first.outcome, back.outcome),
        )  # fmt: skip

    @property
    def state(self) -> State:
        """Where the reply was asked for."""
        return self.user_id, self.dialogue_id, self.turn

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


_ADAPTER = TypeAdapter(Judgement)


def require_unique(judgements: Iterable[Judgement]) -> None:
    """Refuse a comparison that stands twice: it would count twice.

    Raises:
      DataError: two records of one comparison; the message names it.
    """
    seen = set[tuple[object, ...]]()
    for j in judgements:
        key = (j.kind, j.method, j.baseline, j.judge, *j.state, j.sample)
        if key in seen:
            raise DataError(
                f"{j.method} against {j.baseline} stands twice: judge {j.judge}, dialogue {j.dialogue_id}, "
                f"turn {j.turn}, sample {j.sample}, kind {j.kind}",
                fix="keep one of the two records",
            )
        seen.add(key)


def write_judgements(path: Path, judgements: Sequence[Judgement]) -> None:
    """Write JSON lines, atomically: the file is the old one or the whole new one.

    Raises:
      DataError: one comparison stands twice.
    """
    require_unique(judgements)
    lines = [json.dumps(asdict(j), ensure_ascii=False, allow_nan=False) + "\n" for j in judgements]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(lines))


def read_judgements(path: Path) -> list[Judgement]:
    """Read JSON lines, all of them.

    Raises:
      DataError: the file is missing or not UTF-8, a line is not a judgement, or a comparison stands twice.
    """
    judgements = list[Judgement]()
    for number, line in enumerate(read_utf8(path).split("\n"), 1):  # splitlines() would also break inside a string
        if not line.strip():
            continue
        try:
            judgements.append(_ADAPTER.validate_json(line, strict=True))
        except ValidationError as error:
            raise DataError(f"not a judgement: {brief(error)}", path, number) from error
        except DataError as error:
            raise DataError(error.what, path, number) from error
    require_unique(judgements)
    return judgements


def read_utf8(path: Path) -> str:
    """The text of a file.

    Raises:
      DataError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", path) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error


def brief(error: ValidationError) -> str:
    """The first fault that pydantic found, in one phrase, with the place inside the JSON value."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
