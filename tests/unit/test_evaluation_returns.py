"""Returns step by step, by hand: masked replies count nowhere, pairs are of one user, seed and step."""

from __future__ import annotations

import math

import pytest

from pamdp.errors import DataError
from pamdp.evaluation.returns import Step, curves, leads


def _steps(method: str, rewards: dict[str, list[float | None]], seed: int = 0, judge: str = "j") -> list[Step]:
    return [
        Step(method, judge, user, f"d-{user}", seed, t, r) for user, row in rewards.items() for t, r in enumerate(row)
    ]


def test_returns_add_up_and_gains_are_what_each_step_adds() -> None:
    (curve,) = curves(_steps("A", {"u": [1, -1, 0.5], "v": [0, 1, 0.5], "w": [-1, 0, 0.5]}))
    assert [e.value for e in curve.returns] == pytest.approx([0, 0, 0.5])
    assert [e.value for e in curve.gains] == pytest.approx([0, 0, 0.5])
    assert curve.masked == 0 and curve.returns[-1].clusters == 3 and curve.returns[-1].n == 9
    # The last step is the same for everybody: it widens nothing.
    widths = [e.high - e.low for e in curve.returns]
    assert widths[2] == pytest.approx(widths[1]) and curve.gains[2].low == curve.gains[2].high == 0.5


def test_a_masked_reply_is_left_out_and_never_counted_as_0() -> None:
    (curve,) = curves(_steps("A", {"u": [1, None], "v": [0, 1], "w": [None, None]}))
    assert [e.value for e in curve.returns] == pytest.approx([0.5, 1.5]) and curve.masked == 3
    assert [e.n for e in curve.gains] == [2, 1]


def test_a_step_where_everything_is_masked_has_no_return() -> None:
    (curve,) = curves(_steps("A", {"u": [1, None, 1], "v": [0, None, 1]}))
    assert curve.returns[0].value == 0.5 and math.isnan(curve.returns[1].value) and math.isnan(curve.returns[2].value)


def test_differences_are_paired() -> None:
    """Users differ widely and the method is better by exactly 0.5 with each: only a paired interval sees it."""
    base: dict[str, list[float | None]] = {"u": [-1.0, -1.0], "v": [0.0, 0.0], "w": [0.5, 0.5]}
    better: dict[str, list[float | None]] = {u: [x + 0.25 for x in row if x is not None] for u, row in base.items()}
    (lead,) = leads(_steps("Vanilla", base) + _steps("BC", better), ["Vanilla", "BC"])
    assert (lead.method, lead.other) == ("BC", "Vanilla")
    last = lead.returns[-1]
    assert last.value == last.low == last.high == pytest.approx(0.5) and lead.p_value == pytest.approx(0.25)
    curve = curves(_steps("BC", better))[0]
    assert curve.returns[-1].low < 0 < curve.returns[-1].high


def test_the_order_in_which_methods_stand_takes_no_difference_away() -> None:
    steps = {name: _steps(name, {"u": [x], "v": [x]}) for name, x in (("A", 1.0), ("BC", 0.5), ("Vanilla", 0.0))}
    for order in (("A", "BC", "Vanilla"), ("Vanilla", "BC", "A"), ("BC", "A", "Vanilla")):
        found = leads([step for name in order for step in steps[name]], ["Vanilla", "BC"])
        values = {(lead.method, lead.other): lead.returns[-1].value for lead in found}
        assert values == {("A", "Vanilla"): 1.0, ("BC", "Vanilla"): 0.5, ("A", "BC"): 0.5}


def test_what_only_one_of_two_has_is_in_no_difference() -> None:
    a = _steps("A", {"u": [1, 1], "v": [1, None]}) + _steps("A", {"u": [1, 1]}, seed=7)
    b = _steps("B", {"u": [0, 0], "v": [0, 9]}) + _steps("B", {"x": [5, 5]})
    (lead,) = leads(a + b, ["A"])
    assert [e.value for e in lead.returns] == pytest.approx([-1, -2]) and lead.returns[-1].n == 3


def test_judges_are_kept_apart_and_nothing_is_counted_twice() -> None:
    steps = _steps("A", {"u": [1]}) + _steps("A", {"u": [0]}, judge="k")
    assert [(c.judge, c.returns[0].value) for c in curves(steps)] == [("j", 1), ("k", 0)]
    with pytest.raises(DataError, match=r"stands twice: Step\(method='A', judge='j', .*turn=0"):
        curves(steps + steps[:1])
