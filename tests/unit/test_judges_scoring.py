"""From scores to verdicts: by hand, and what happens to scores that are no numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamdp.errors import JudgeError
from pamdp.judges.base import Case, Verdict, forget
from pamdp.judges.scoring import Calibration, ScoringJudge, Sum, fit_temperature
from pamdp.types import History, Message, Persona

HISTORY = (Message("user", "first"), Message("assistant", "reply"), Message("user", "Tea?"))


class Table:
    """Scores from a table; remembers what it was asked."""

    messages = 1
    personal = True

    def __init__(self, table: dict[str, float]) -> None:
        self.table, self.asked = table, list[tuple[str, ...]]()

    def score(self, persona: Persona, history: History, replies: Sequence[str]) -> list[float]:
        self.asked.append(tuple(replies))
        return [self.table[reply] for reply in replies]


def test_verdict_by_hand() -> None:
    # x = 1/2; σ(0.4), σ(−0.6)
    v = Calibration(temperature=2.0, tie=0.1).verdict(1.0)
    assert (v.p_a, v.p_b, v.p_tie) == pytest.approx((0.598688, 0.354344, 0.046968), abs=1e-6)
    assert v.outcome == "win" and v.reward == 1 and v.expected_reward == pytest.approx(0.267829, abs=1e-6)
    assert Calibration(2.0).verdict(-1.0).outcome == "loss"


def test_an_exact_draw_is_a_tie_worth_a_half() -> None:
    v = Calibration().verdict(0.0)
    assert v == Verdict(0.0, 0.0, 1.0) and v.reward == 0.5 and v.expected_reward == 0.5


def test_no_score_swamps() -> None:
    assert Calibration(limit=4.0).verdict(1e6) == Calibration(limit=4.0).verdict(4.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_raise(bad: float) -> None:
    judge = ScoringJudge("it", Table({"a": bad, "b": 0.0}), Calibration(), {})
    with pytest.raises(JudgeError, match="says nothing"):
        judge.judge([Case(Persona(), HISTORY, "a", "b")])


@settings(max_examples=40)
@given(st.floats(-50, 50), st.floats(0.05, 20), st.floats(0, 1))
def test_more_is_never_worse(difference: float, temperature: float, tie: float) -> None:
    c = Calibration(temperature, tie)
    low, high = c.verdict(difference), c.verdict(difference + 1)
    assert low.p_a + low.p_b + low.p_tie == pytest.approx(1) and low.p_tie >= -1e-12
    if difference not in (0, -1):
        assert high.p_a >= low.p_a and high.p_b <= low.p_b


@pytest.mark.parametrize(("tau", "tie", "within"), [(0.5, 0.0, 0.03), (2.0, 0.0, 0.03), (2.0, 0.1, 0.1)])
def test_a_known_temperature_is_found_again(tau: float, tie: float, within: float) -> None:
    differences = []
    for k in range(1, 13):
        d = tau * k / 4
        v = Calibration(tau, tie, 30.0).verdict(d)
        differences += [d] * round(50 * v.p_a) + [-d] * round(50 * v.p_b)
    assert fit_temperature(differences, tie) == pytest.approx(tau, rel=within)


def test_each_distinct_reply_of_a_context_is_scored_once() -> None:
    scorer, seen = Table({"a": 1.0, "b": 2.0, "c": 4.0}), list[int]()
    judge = ScoringJudge("it", scorer, Calibration(limit=30.0), {})
    later = HISTORY[-1:]  # the same last message: the same context
    cases = [Case(Persona(), HISTORY, "a", "b"), Case(Persona(), later, "c", "a"), Case(Persona("x"), later, "c", "a")]
    verdicts = judge.judge(cases, seen.append)
    assert scorer.asked == [("a", "b", "c"), ("c", "a")] and seen == [2, 1]
    assert verdicts == [Calibration(limit=30.0).verdict(d) for d in (-1.0, 3.0, 3.0)]


@pytest.mark.parametrize("wrap", [lambda scorer: scorer, lambda scorer: Sum([(scorer, 2.0)])])
def test_a_score_that_is_for_nobody_is_found_once(wrap: Callable[[Table], Table | Sum]) -> None:
    scorer = Table({"a": 1.0, "b": 2.0})
    scorer.personal = False
    judge = ScoringJudge("it", wrap(scorer), Calibration(), {})
    judge.judge([Case(who, HISTORY, "a", "b") for who in (Persona("x"), Persona(), Persona("y"))])
    assert scorer.asked == [("a", "b")]


def test_a_sum_is_for_a_person_where_a_part_is() -> None:
    ours, theirs = Table({}), Table({})
    theirs.personal = False
    assert [Sum([(a, 1.0), (b, 1.0)]).personal for a, b in ((ours, theirs), (theirs, theirs))] == [True, False]


def test_a_sum_weighs_by_temperature() -> None:
    parts = Sum([(Table({"a": 1.0, "b": 2.0}), 2.0), (Table({"a": 3.0, "b": -1.0}), 0.5)])
    assert parts.score(Persona(), HISTORY, ["a", "b"]) == [0.5 + 6.0, 1.0 - 2.0]


class Company:
    """Scores a reply by how many are asked about with it, as a packed pass does in its last digits; keeps a sum."""

    messages = 1
    personal = True

    def __init__(self) -> None:
        self.kept = 0.0

    def score(self, persona: Persona, history: History, replies: Sequence[str]) -> list[float]:
        self.kept += 0.125
        return [len(reply) + len(replies) + self.kept for reply in replies]

    def forget(self) -> None:
        self.kept = 0.0


@pytest.mark.parametrize("wrap", [lambda scorer: scorer, lambda scorer: Sum([(scorer, 2.0)])])
def test_who_forgets_answers_as_a_new_judge(wrap: Callable[[Company], Company | Sum]) -> None:
    """A resumed run has a new judge, an uninterrupted one has asked it before: their rewards must be equal."""
    asked, new = (ScoringJudge("it", wrap(Company()), Calibration(), {}) for _ in range(2))
    cases = [Case(Persona(), HISTORY, "a", "bbb"), Case(Persona(), HISTORY, "a", "cc")]
    asked.judge(cases[1:])
    assert asked.judge(cases) != new.judge(cases)
    forget(asked), forget(new)
    assert asked.judge(cases) == new.judge(cases)


def test_what_keeps_nothing_need_not_forget() -> None:
    forget(object())
