"""`judge eval` by hand: accuracy, intervals, controls."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import pytest

from pamdp.evaluation.judge_eval import evaluate_judge
from pamdp.judges.base import Case, Verdict
from pamdp.types import Message, Persona, PreferencePair

ASK = (Message("user", "What tea?"),)


class NameJudge:
    """Prefers the reply that names the person; without a name in one of them it has no opinion."""

    name = "names"
    fingerprint = {"name": "names"}  # noqa: RUF012

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        return [self._verdict(c.persona.profile, c.a, c.b) for c in cases]

    def _verdict(self, who: str, a: str, b: str) -> Verdict:
        gap = (bool(who) and who in a) - (bool(who) and who in b)
        return Verdict(0.45, 0.45, 0.1) if gap == 0 else Verdict(0.9, 0.1) if gap > 0 else Verdict(0.1, 0.9)


def _pair(id: str, who: str, preferred: str, rejected: str, kind: str = "", twin: str | None = None) -> PreferencePair:
    return PreferencePair(id, Persona(who), ASK, preferred, rejected, kind, twin)


PAIRS = [
    _pair("1", "Anna", "for Anna", "for all of you", "taste"),  # right; shorter
    _pair("2", "Bert", "for somebody", "for Bert", "taste"),  # wrong; longer
    _pair("3", "Cleo", "for nobody", "for none", "style"),  # no opinion: a half; longer
    _pair("4", "Dora", "for Dora, of course", "for Anna", "style"),  # right; longer; wrong for Anna
]


def test_accuracy_and_controls_by_hand() -> None:
    report = evaluate_judge(NameJudge(), PAIRS)
    assert (report.accuracy, report.n) == (0.625, 4)
    assert {k: (v.accuracy, v.n) for k, v in report.by_kind.items()} == {"taste": (0.5, 2), "style": (0.75, 2)}
    controls = {name: row.accuracy for name, row in report.controls.items()}
    assert controls["length"] == 0.75
    assert controls["persona_blind"] == 0.5
    assert {k: v.accuracy for k, v in report.blind_by_kind.items()} == {"taste": 0.5, "style": 0.5}
    # overlap: Anna right, Bert wrong, Cleo and nobody a half, Dora right
    assert controls["keyword_overlap"] == 0.625
    # judged for the person two further on: Cleo, Dora, Anna, Bert: nobody of them is named
    assert controls["other_persona"] == 0.5
    low, high = report.ci95
    assert 0 <= low < 0.625 < high <= 1


def test_another_person_is_never_the_same_one_or_the_twin() -> None:
    """Twins far apart: half the file away is exactly where the twin stands."""
    twins = [_pair("a", "Anna", "Anna", "Bert", twin="c"), _pair("b", "Dora", "Dora", "Cleo", twin="d")]
    twins += [_pair("c", "Bert", "Bert", "Anna", twin="a"), _pair("d", "Cleo", "Cleo", "Dora", twin="b")]
    report = evaluate_judge(NameJudge(), twins)
    assert report.accuracy == 1
    assert report.controls["other_persona"].accuracy == 0.5  # the twin's person would make it 0, the own one 1
    same = [_pair("a", "Anna", "Anna", "Bert"), _pair("b", "Anna", "Anna", "Cleo")]
    assert evaluate_judge(NameJudge(), same).controls["other_persona"].accuracy == 0.5


def _interval(pairs: Sequence[PreferencePair]) -> float:
    low, high = evaluate_judge(NameJudge(), pairs).ci95
    return high - low


def test_twins_are_one_cluster() -> None:
    """A twin that always agrees with its pair adds no certainty."""
    alone, both = [], []
    for i in range(12):
        said = ("for Anna", "for you") if i % 2 else ("for you", "for Anna")
        alone.append(_pair(f"{i:02}a", "Anna", *said))
        both += [_pair(f"{i:02}a", "Anna", *said, twin=f"{i:02}b"), _pair(f"{i:02}b", "Anna", *said, twin=f"{i:02}a")]
    free = [PreferencePair(p.id, p.persona, p.history, p.preferred, p.rejected) for p in both]
    assert _interval(both) == pytest.approx(_interval(alone), abs=1e-4)
    assert _interval(free) < 0.85 * _interval(both)


def test_json_has_no_nan() -> None:
    one = evaluate_judge(NameJudge(), PAIRS[:1])
    assert math.isnan(one.ci95[0])
    found = json.loads(json.dumps(one.to_json(), allow_nan=False))
    assert found["accuracy"] == 1 and found["ci95"] is None and found["by_kind"]["taste"]["ci95"] is None
    assert found["controls"]["persona_blind"] == 0.5 and found["controls_ci95"]["length"] is None
    assert one.table().row_count == 6
