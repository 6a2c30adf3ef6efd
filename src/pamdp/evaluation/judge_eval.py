"""`pamdp judge eval`: how often a judge agrees with labelled pairs, and what it scores without the person.

Owns accuracy, its intervals and the controls (length, keyword overlap, persona-blind, another person). Pairs that are
twins are resampled together. A tie counts half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

from pamdp.evaluation.significance import cluster_bootstrap
from pamdp.judges.base import Case, Judge, Verdict
from pamdp.types import Persona, PreferencePair


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of pairs decided as labelled, with its 95 % interval; NaN where one cluster leaves none."""

    accuracy: float
    ci95: tuple[float, float]
    n: int

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {"accuracy": self.accuracy, "ci95": _ends(self.ci95), "n": self.n}


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """What `judge eval` prints."""

    judge: str
    accuracy: float
    ci95: tuple[float, float]
    n: int
    by_kind: dict[str, Accuracy]
    controls: dict[str, Accuracy]
    blind_by_kind: dict[str, Accuracy]

    def to_json(self) -> dict[str, object]:
        """Plain values; controls are plain accuracies with their intervals beside them."""
        return {
            "judge": self.judge, "accuracy": self.accuracy, "ci95": _ends(self.ci95), "n": self.n,
            "by_kind": {k: v.to_json() for k, v in self.by_kind.items()},
            "controls": {k: v.accuracy for k, v in self.controls.items()},
            "controls_ci95": {k: _ends(v.ci95) for k, v in self.controls.items()},
            "blind_by_kind": {k: v.to_json() for k, v in self.blind_by_kind.items()},
        }  # fmt: skip

    def table(self) -> Table:
        """For a terminal."""
        table = Table(title=f"judge {self.judge}: agreement with labelled pairs")
        for column in ("what", "accuracy", "95 % interval", "pairs", "persona-blind"):
            table.add_column(column, justify="left" if column == "what" else "right")
        rows = {"all": Accuracy(self.accuracy, self.ci95, self.n), **self.by_kind}
        blind = {"all": self.controls["persona_blind"], **self.blind_by_kind}
        for name, row in rows.items():
            table.add_row(name, f"{row.accuracy:.3f}", _interval(row), str(row.n), f"{blind[name].accuracy:.3f}")
        table.add_section()
        for name, row in self.controls.items():
            table.add_row(f"control: {name}", f"{row.accuracy:.3f}", _interval(row), str(row.n), "")
        return table


def evaluate_judge(
    judge: Judge, pairs: Sequence[PreferencePair], progress: Callable[[int], None] | None = None
) -> JudgeReport:
    """Accuracy of JUDGE on PAIRS, per kind, with its controls."""
    right = _right(judge, pairs, [p.persona for p in pairs], progress)
    blind = _right(judge, pairs, [Persona() for _ in pairs], progress)
    other = _right(judge, pairs, _others(pairs), progress)
    kinds = sorted({p.kind for p in pairs if p.kind})
    length = [_compare(len(p.preferred), len(p.rejected)) for p in pairs]
    overlap = [_compare(_overlap(p.persona, p.preferred), _overlap(p.persona, p.rejected)) for p in pairs]
    total = _accuracy(right, pairs)
    controls = {"length": length, "keyword_overlap": overlap, "persona_blind": blind, "other_persona": other}
    return JudgeReport(
        judge.name, total.accuracy, total.ci95, total.n,
        {k: _of_kind(right, pairs, k) for k in kinds},
        {k: _accuracy(v, pairs) for k, v in controls.items()},
        {k: _of_kind(blind, pairs, k) for k in kinds},
    )  # fmt: skip


def _right(
    judge: Judge,
    pairs: Sequence[PreferencePair],
    personas: Sequence[Persona],
    progress: Callable[[int], None] | None,
) -> list[float]:
    cases = [Case(w, p.history, p.preferred, p.rejected) for w, p in zip(personas, pairs, strict=True)]
    return [_credit(verdict) for verdict in judge.judge(cases, progress)]


def _credit(verdict: Verdict) -> float:
    return _compare(verdict.p_a, verdict.p_b)


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


def _of_kind(right: Sequence[float], pairs: Sequence[PreferencePair], kind: str) -> Accuracy:
    chosen = [i for i, p in enumerate(pairs) if p.kind == kind]
    return _accuracy([right[i] for i in chosen], [pairs[i] for i in chosen])


def _accuracy(right: Sequence[float], pairs: Sequence[PreferencePair]) -> Accuracy:
    clusters = [min(p.id, p.twin or p.id) for p in pairs]
    found = cluster_bootstrap(right, clusters)
    return Accuracy(round(found.value, 4), (round(found.low, 4), round(found.high, 4)), found.n)


def _overlap(persona: Persona, reply: str) -> int:
    words = {w.strip(".,;:!?\"'()").lower() for w in persona.text.split()}
    return sum(w.strip(".,;:!?\"'()").lower() in words for w in reply.split() if len(w) > 3)


def _ends(ci95: tuple[float, float]) -> list[float] | None:
    """An interval for JSON, which has no word for NaN."""
    return None if math.isnan(ci95[0]) else list(ci95)


def _interval(row: Accuracy) -> str:
    return "-" if math.isnan(row.ci95[0]) else f"{row.ci95[0]:.3f} .. {row.ci95[1]:.3f}"
