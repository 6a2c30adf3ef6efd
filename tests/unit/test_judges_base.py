"""Judges of one's own: a class or a function gets a name, is identified by its source, and masks what it cannot say."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pamdp.env.reward import Reward
from pamdp.errors import ConfigError, JudgeError
from pamdp.judges.base import Case, FunctionJudge, Judge, Verdict, register_judge, verdicts_of
from pamdp.models.backbone import Backbone
from pamdp.registry import JUDGES
from pamdp.testing import check_judge
from pamdp.types import Message, Persona, TimeStep

ASK = (Message("user", "Tea?"),)


def longer(case: Case) -> float:
    """Prefers the longer reply."""
    return 0.5 if len(case.a) == len(case.b) else float(len(case.a) > len(case.b))


def longer_too(case: Case) -> float:
    """Prefers the longer reply."""
    return 0.5 + 0.5 * (len(case.a) > len(case.b)) - 0.5 * (len(case.a) < len(case.b))


def _no_backbone() -> Backbone:
    raise AssertionError("nobody asked for a backbone")


def _case(a: str, b: str = "mm") -> Case:
    return Case(Persona("Ana."), ASK, a, b)


def test_a_function_is_a_judge_named_by_its_source() -> None:
    assert register_judge("longer")(longer) is longer
    judge = JUDGES["longer"](_no_backbone)
    check_judge(judge)
    seen = list[int]()
    found = judge.judge([_case("xxx"), _case("x"), _case("xx")], seen.append)
    assert found == [Verdict(1.0, 0.0), Verdict(0.0, 1.0), Verdict(0.5, 0.5)] and seen == [1, 1, 1]
    assert judge.fingerprint == FunctionJudge("longer", longer).fingerprint
    assert judge.fingerprint["source"] != FunctionJudge("longer", longer_too).fingerprint["source"]


def test_a_function_may_give_whole_verdicts() -> None:
    verdict = Verdict(0.2, 0.3, 0.5)
    assert FunctionJudge("v", lambda case: verdict).judge([_case("x")]) == [verdict]


@pytest.mark.parametrize("wrong", [1.5, -0.1, float("nan"), None, "A"])
def test_what_is_no_probability_is_no_verdict(wrong: object) -> None:
    judge = FunctionJudge("w", lambda case: wrong if case.a == "x" else 1.0)  # type: ignore[arg-type, return-value]
    with pytest.raises(JudgeError, match="is no probability"):
        judge.judge([_case("x")])
    assert verdicts_of(judge, [_case("y"), _case("x"), _case("z")]) == [Verdict(1, 0), None, Verdict(1, 0)]


def test_a_judge_error_masks_its_own_reply() -> None:
    def fussy(case: Case) -> float:
        if case.a == "broken":
            raise JudgeError("nothing to say")
        return 1.0

    steps = [TimeStep("d", 0, ASK, Persona("Ana."))] * 3
    assert Reward(FunctionJudge("f", fussy), {ASK: ("u",)})(steps, ["x", "broken", "y"]) == [1.0, None, 1.0]


def test_a_function_without_a_source_cannot_be_told_from_another() -> None:
    space: dict[str, object] = {}
    exec("def f(case): return 1.0", space)
    with pytest.raises(ConfigError, match="judge 'f': write it in a file"):
        FunctionJudge("f", space["f"])  # type: ignore[arg-type]


def test_a_class_is_made_when_it_is_asked_for() -> None:
    @register_judge("mine")
    class Mine:
        name = "mine"
        fingerprint = {"name": "mine", "version": "1"}  # noqa: RUF012

        def judge(self, cases: Sequence[Case], progress: object = None) -> list[Verdict]:
            return [Verdict(0.5, 0.5) for _ in cases]

    judge = JUDGES["mine"](_no_backbone)
    assert isinstance(judge, Judge) and isinstance(judge, Mine)
    check_judge(judge)


def test_a_class_that_is_no_judge_or_has_another_name_is_refused_in_one_line() -> None:
    class Other:
        name, fingerprint = "other", {"name": "other"}

        def judge(self, cases: Sequence[Case], progress: object = None) -> list[Verdict]:
            return []

    for wrong in (Other, dict):
        register_judge("mine")(wrong)
        with pytest.raises(ConfigError, match=rf"judge 'mine': give {wrong.__name__} a name 'mine', a fingerprint"):
            JUDGES["mine"](_no_backbone)
