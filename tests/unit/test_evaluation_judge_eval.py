"""`judge eval` by hand: accuracy, intervals, controls."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import pytest
from torch import Tensor

from pamdp.errors import JudgeError
from pamdp.evaluation.judge_eval import evaluate_judge
from pamdp.judges import likelihood as likelihood_module
from pamdp.judges import match as match_module
from pamdp.judges.base import Case, Verdict
from pamdp.judges.scoring import Calibration, ScoringJudge, Sum
from pamdp.models.backbone import Backbone
from pamdp.models.packed_contexts import PackedRow, run_layers
from pamdp.types import Message, Persona, PreferencePair
from tests.tools.judges import make_likelihood, make_match

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
    assert (report.total.value, report.total.n) == (0.625, 4)
    assert {k: (v.value, v.n) for k, v in report.by_kind.items()} == {"taste": (0.5, 2), "style": (0.75, 2)}
    controls = {name: row.value for name, row in report.controls.items()}
    assert controls["length"] == 0.75
    assert controls["persona_blind"] == 0.5
    assert {k: v.value for k, v in report.blind_by_kind.items()} == {"taste": 0.5, "style": 0.5}
    # overlap: Anna right, Bert wrong, Cleo and nobody a half, Dora right
    assert controls["keyword_overlap"] == 0.625
    # judged for the person two further on: Cleo, Dora, Anna, Bert: nobody of them is named
    assert controls["other_persona"] == 0.5
    low, high = report.total.low, report.total.high
    assert 0 <= low < 0.625 < high <= 1


def test_another_person_is_never_the_same_one_or_the_twin() -> None:
    """Twins far apart: half the file away is exactly where the twin stands."""
    twins = [_pair("a", "Anna", "Anna", "Bert", twin="c"), _pair("b", "Dora", "Dora", "Cleo", twin="d")]
    twins += [_pair("c", "Bert", "Bert", "Anna", twin="a"), _pair("d", "Cleo", "Cleo", "Dora", twin="b")]
    report = evaluate_judge(NameJudge(), twins)
    assert report.total.value == 1
    assert report.controls["other_persona"].value == 0.5  # the twin's person would make it 0, the own one 1
    same = [_pair("a", "Anna", "Anna", "Bert"), _pair("b", "Anna", "Anna", "Cleo")]
    assert evaluate_judge(NameJudge(), same).controls["other_persona"].value == 0.5


def _interval(pairs: Sequence[PreferencePair]) -> float:
    total = evaluate_judge(NameJudge(), pairs).total
    return total.high - total.low


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
    assert math.isnan(one.total.low)
    found = json.loads(json.dumps(one.to_json(), allow_nan=False))
    assert found["accuracy"] == 1 and found["ci95"] is None and found["by_kind"]["taste"]["ci95"] is None
    assert found["controls"]["persona_blind"] == 0.5 and found["controls_ci95"]["length"] is None
    assert one.table().row_count == 6


def test_a_verdict_that_cannot_be_had_is_left_out() -> None:
    class Silent(NameJudge):
        def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
            if any(case.persona.profile == "Bert" for case in cases):
                raise JudgeError("nothing to say")
            return super().judge(cases)

    report = evaluate_judge(Silent(), PAIRS)
    assert (report.total.value, report.total.n) == (pytest.approx(2.5 / 3), 3)
    assert report.by_kind["taste"].n == 1 and report.controls["persona_blind"].n == 4
    assert evaluate_judge(Silent(), PAIRS[1:2]).to_json()["accuracy"] is None


APART = [
    PreferencePair(str(i), Persona(f"Likes {i}.", "Brief."), (Message("user", f"What of {i}?"),), f"{i}!", f"Not {i}.")
    for i in range(5)
]


@pytest.mark.parametrize(("which", "each"), [("likelihood", 4), ("match", 1), ("sum", 5)])
def test_what_the_controls_have_in_common_is_read_once(which: str, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes over a pair's replies: likelihood one without a person and one for each person, match one for all."""
    passes = list[PackedRow]()

    def spy(backbone: Backbone, row: PackedRow, states: Tensor | None, first: int, *more: Any) -> Tensor:
        if first == 0 and row.predicts:
            passes.append(row)
        return run_layers(backbone, row, states, first, *more)

    for module in (match_module, likelihood_module):
        monkeypatch.setattr(module, "run_layers", spy)
    match, likelihood = make_match(), make_likelihood()
    scorer = {"likelihood": likelihood, "match": match, "sum": Sum([(match, 1.0), (likelihood, 1.0)])}[which]
    seen = list[int]()
    evaluate_judge(ScoringJudge(which, scorer, Calibration(), {}), APART, seen.append)
    assert len(passes) == each * len(APART) and sum(seen) == 3 * len(APART)


def test_what_was_read_once_is_scored_as_if_it_was_read_each_time() -> None:
    def fresh(persona: Persona, pair: PreferencePair) -> list[float]:
        return make_likelihood().score(persona, pair.history, (pair.preferred, pair.rejected))

    kept = make_likelihood()
    for persona in (Persona(), APART[0].persona, APART[1].persona):
        for pair in APART[:2]:
            found = kept.score(persona, pair.history, (pair.preferred, pair.rejected))
            assert found == pytest.approx(fresh(persona, pair), abs=1e-5)


def test_one_person_is_judged_for_after_the_other() -> None:
    asked = list[Persona]()

    class Noting(NameJudge):
        def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
            asked.extend(case.persona for case in cases)
            return super().judge(cases)

    evaluate_judge(Noting(), APART)
    assert len(asked) == 3 * len(APART) and len(list(groupby(asked))) == len(APART) + 1
