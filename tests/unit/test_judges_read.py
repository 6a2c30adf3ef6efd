"""The judge that looks up what readers said."""

from __future__ import annotations

import pytest

from pamdp.data.readings import Answers, ReadReply, ReadState
from pamdp.errors import JudgeError
from pamdp.judges.base import Case, Verdict, swap, verdicts_of
from pamdp.judges.read import ReadingsJudge
from pamdp.types import Message, Persona

LONG = tuple(Message("assistant" if i % 2 else "user", f"message {i}") for i in range(9))
STATE = ReadState(
    id="d/5", user_id="u", profile="Keeps goats.", personality="Dry.", history=LONG[-7:],
    replies={"A": ReadReply(text="Good."), "B": ReadReply(text="Bad  one."), "C": ReadReply(text="So so.")},
    readings=(
        Answers(reader="ann", kind="person", prefer={"A-B": "A", "A-C": "tie"}),
        Answers(reader="bob", kind="model", prefer={"A-B": "B"}),
        Answers(reader="cid", kind="person", prefer={"A-B": "A"}),
        Answers(reader="dan", kind="person", prefer={"A-B": "A"}),
    ),
)  # fmt: skip
PERSON = Persona("Keeps goats.", "Dry.")


def test_several_readers_are_the_probabilities() -> None:
    case = Case(PERSON, LONG, "Good.", "Bad one.")  # a longer history, other blanks
    judge = ReadingsJudge([STATE])
    assert judge.judge([case, swap(case)]) == [Verdict(0.75, 0.25), Verdict(0.25, 0.75)]
    assert judge.judge([case])[0].expected_reward == 0.5


def test_a_tie_and_the_same_words_are_certain_ties() -> None:
    cases = [Case(PERSON, LONG, "So so.", "Good."), Case(PERSON, LONG, "Never read.", "Never  read.")]
    assert ReadingsJudge([STATE]).judge(cases) == [Verdict(0.0, 0.0, 1.0)] * 2


@pytest.mark.parametrize(
    "case",
    [
        Case(PERSON, LONG, "Good.", "Never read."),
        Case(PERSON, LONG, "Bad one.", "So so."),  # both are known, and nobody compared them
        Case(Persona("Keeps goats.", "Warm."), LONG, "Good.", "Bad one."),
        Case(PERSON, LONG[:7], "Good.", "Bad one."),
    ],
)
def test_what_was_not_read_is_masked_and_costs_no_other(case: Case) -> None:
    judge, known = ReadingsJudge([STATE]), Case(PERSON, LONG, "Good.", "Bad one.")
    with pytest.raises(JudgeError, match="nobody has read"):
        judge.judge([case])
    assert verdicts_of(judge, [case, known]) == [None, Verdict(0.75, 0.25)]


def test_other_readings_are_another_judge() -> None:
    other = STATE.model_copy(update={"readings": STATE.readings[:1]})
    assert ReadingsJudge([STATE]).fingerprint != ReadingsJudge([other]).fingerprint
