"""`pamdp judge eval`: how often a judge agrees with labelled pairs, and what it scores without the person.

Owns accuracy, its intervals and the controls (length, keyword overlap, persona-blind, another person). Pairs that are
twins are resampled together. A tie counts half; a verdict that could not be had is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

from pamdp.errors import DataError
from pamdp.evaluation.significance import UNKNOWN, Estimate, cluster_bootstrap
from pamdp.judges.base import Case, Judge, verdicts_of
from pamdp.types import Persona, PreferencePair

Credits = Sequence[float | None]
"""For each pair 1 where it is decided as labelled, 0 where it is not, 0.5 for a tie, None where it is not decided."""


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """What `judge eval` prints: shares of pairs decided as labelled.

    Attributes:
      total, by_kind: with the person.
      controls: by what is controlled for; `blind_by_kind` is the persona-blind one by kind.
    """

    judge: str
    total: Estimate
    by_kind: dict[str, Estimate]
    controls: dict[str, Estimate]
    blind_by_kind: dict[str, Estimate]

    def to_json(self) -> dict[str, object]:
        """Plain values; controls are plain accuracies with their intervals beside them."""
        return {
            "judge": self.judge, **_json(self.total),
            "by_kind": {k: _json(v) for k, v in self.by_kind.items()},
            "controls": {k: _json(v)["accuracy"] for k, v in self.controls.items()},
            "controls_ci95": {k: _json(v)["ci95"] for k, v in self.controls.items()},
            "blind_by_kind": {k: _json(v) for k, v in self.blind_by_kind.items()},
        }  # fmt: skip

    def table(self) -> Table:
        """For a terminal."""
        table = Table(title=f"judge {self.judge}: agreement with labelled pairs")
        for column in ("what", "accuracy", "95 % interval", "pairs", "persona-blind"):
            table.add_column(column, justify="left" if column == "what" else "right")
        blind = {"all": self.controls["persona_blind"], **self.blind_by_kind}
        for name, row in {"all": self.total, **self.by_kind}.items():
            table.add_row(name, *_cells(row), f"{blind[name].value:.3f}")
        table.add_section()
        for name, row in self.controls.items():
            table.add_row(f"control: {name}", *_cells(row), "")
        return table


def evaluate_judge(
    judge: Judge,
    pairs: Sequence[PreferencePair],
    progress: Callable[[int], None] | None = None,
    users: Sequence[str] | None = None,
) -> JudgeReport:
    """Accuracy of JUDGE on PAIRS, per kind, with its controls.

    Args:
      users: whose each pair is, where pairs of a user are resampled together; without, twins are.
      progress: called with how many more verdicts there are; three for each pair.

    Raises:
      DataError: there is no pair.
    """
    if not pairs:
        raise DataError("no pair is decided", fix="give labelled pairs, or readings with a decided `prefer`")
    persons = [*(p.persona for p in pairs), *(Persona() for _ in pairs), *_others(pairs)]
    cases = [Case(w, p.history, p.preferred, p.rejected) for w, p in zip(persons, (*pairs,) * 3, strict=True)]
    # One person after the other: a judge need not read any of them twice.
    order = sorted(range(len(cases)), key=lambda i: cases[i].persona.text)
    verdicts = dict(zip(order, verdicts_of(judge, [cases[i] for i in order], progress), strict=True))
    credit = [None if (v := verdicts[i]) is None else _compare(v.p_a, v.p_b) for i in range(len(cases))]
    right, blind, other = (credit[i : i + len(pairs)] for i in range(0, len(cases), len(pairs)))
    kinds = sorted({p.kind for p in pairs if p.kind})
    together = users if users is not None else [min(p.id, p.twin or p.id) for p in pairs]

    def accuracy(credit: Credits, kind: str | None = None) -> Estimate:
        """Mean credit, of one kind of pairs or of all."""
        rows = zip(credit, pairs, together, strict=True)
        kept = [(c, who) for c, p, who in rows if c is not None and kind in (None, p.kind)]
        return cluster_bootstrap([c for c, _ in kept], [who for _, who in kept]) if kept else UNKNOWN

    controls: dict[str, Credits] = {
        "length": [_compare(len(p.preferred), len(p.rejected)) for p in pairs],
        "keyword_overlap": [_compare(_overlap(p, p.preferred), _overlap(p, p.rejected)) for p in pairs],
        "persona_blind": blind,
        "other_persona": other,
    }
    return JudgeReport(
        judge.name, accuracy(right),
        {k: accuracy(right, k) for k in kinds},
        {k: accuracy(v) for k, v in controls.items()},
        {k: accuracy(blind, k) for k in kinds},
    )  # fmt: skip


def _compare(a: float, b: float) -> float:
    return 1.0 if a > b else 0.0 if a < b else 0.5


def _others(pairs: Sequence[PreferencePair]) -> list[Persona]:
    """Another person for each pair, never its own or its twin's; nobody where there is no other."""
    n = len(pairs)
    out = []
    for i, own in enumerate(pairs):
        later = (pairs[(i + max(n // 2, 1) + k) % n] for k in range(n))
        out.append(next((p.persona for p in later if p.persona != own.persona and own.id != p.twin), Persona()))
    return out


def _overlap(pair: PreferencePair, reply: str) -> int:
    words = {w.strip(".,;:!?\"'()").lower() for w in pair.persona.text.split()}
    return sum(w.strip(".,;:!?\"'()").lower() in words for w in reply.split() if len(w) > 3)


def _json(row: Estimate) -> dict[str, object]:
    """Plain values; JSON has no word for NaN."""
    accuracy, low, high = (None if math.isnan(x) else round(x, 4) for x in (row.value, row.low, row.high))
    return {"accuracy": accuracy, "ci95": None if low is None else [low, high], "n": row.n}


def _cells(row: Estimate) -> tuple[str, str, str]:
    interval = "-" if math.isnan(row.low) else f"{row.low:.3f} .. {row.high:.3f}"
    return f"{row.value:.3f}", interval, str(row.n)
