"""The language model as judge: what it is asked, how its verdict is read, and what becomes of those that cannot be."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pamdp.errors import AnswerError, EndpointError, JudgeError
from pamdp.judges.base import Case, Outcome, Verdict
from pamdp.judges.pairwise import PairwiseJudge, parse_verdict
from pamdp.llm.ask import Asking
from pamdp.llm.limits import Limited, Limits, Retrying
from pamdp.types import Message, Persona
from tests.tools.chats import LONE, NURSE
from tests.tools.scripted import Faulty, ScriptedChat
from tests.tools.virtual_time import play

PERSON = Persona("Ana is a nurse.", "She is brief.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A is shorter.\n[[A]]", "win"),
        ("[[B]]", "loss"),
        ("Both bore. [[C]].", "tie"),
        ("[[A]] because of the tone. So: [[A]]", "win"),
        ("The verdict is: [[a]]", "win"),
        ("[[A]] would be too long.\n\n**[[B]]**\n", "loss"),
        ('"[[A]]" would be too long, so [[C]]', "tie"),
    ],
)
def test_verdicts_are_read(text: str, expected: Outcome) -> None:
    assert parse_verdict(text) == expected


@pytest.mark.parametrize(
    "text", ["A", "[A]", "[[D]]", "", "[[A]] or [[B]]", "[[A]]\nNot [[B]]", "[[ A ]]", "the winner is assistant A"]
)
def test_what_is_no_verdict_is_not_read_as_one(text: str) -> None:
    with pytest.raises(AnswerError):
        parse_verdict(text)


def _first(messages: Sequence[Message], seed: int) -> str:
    return "[[A]]"


def test_the_judge_is_shown_person_history_message_and_replies_as_they_are() -> None:
    model = ScriptedChat(_first)
    PairwiseJudge("j", model).judge([Case(PERSON, NURSE, "Cut {it} thin.", "Ask {profile}!")])
    ((message,),) = model.asked
    for part in (PERSON.profile, PERSON.personality, "Cut {it} thin.", "Ask {profile}!", NURSE[-1].content):
        assert part in message.content
    assert "Person: I am a nurse and I work nights." in message.content
    assert message.content.count(NURSE[-1].content) == 1  # the question is not in the history too


def test_a_judge_with_a_liking_for_the_first_place_says_nothing_in_both_orders() -> None:
    (verdict,) = PairwiseJudge("j", ScriptedChat(_first), both_orders=True).judge([Case(PERSON, LONE, "x", "y")])
    assert verdict == Verdict(0, 0, 1) and verdict.outcome == "tie"


@pytest.mark.parametrize("second", ["[[A]]", "[[C]]"])
def test_where_the_orders_disagree_both_ways_of_rewarding_say_the_same(second: str) -> None:
    """A tie is worth +0.5, whether the orders contradict each other or only one of them sees a difference."""
    said = iter(["[[A]]", second])
    judge = PairwiseJudge("j", ScriptedChat(lambda messages, seed: next(said)), both_orders=True)
    (verdict,) = judge.judge([Case(PERSON, LONE, "x", "y")])
    assert verdict.reward == verdict.expected_reward == 0.5


def test_one_unreadable_verdict_is_asked_for_again_then_only_it_is_missing() -> None:
    def answer(messages: Sequence[Message], seed: int) -> str:
        return "A, I think" if "<<<\nbad" in messages[-1].content else "[[B]]"

    model = ScriptedChat(answer)
    judge = PairwiseJudge("j", model)
    cases = [Case(PERSON, LONE, reply, "y") for reply in ("x", "bad", "z")]
    with pytest.raises(JudgeError, match="1 of 3"):
        judge.judge(cases)
    assert len(model.asked) == 2 + 3
    verdicts, _ = play(judge.verdicts(cases))
    assert verdicts == [Verdict(0, 1), None, Verdict(0, 1)]


def test_a_dead_endpoint_is_no_verdict_but_an_end() -> None:
    model = Retrying(Faulty(ScriptedChat(_first), {"cut": 1.0}), attempts=2, base=0.0)
    with pytest.raises(EndpointError, match="failed 2 times"):
        PairwiseJudge("j", model).judge([Case(PERSON, LONE, "x", "y")] * 5)


def test_calls_overlap_up_to_what_is_allowed() -> None:
    """The issue's throughput, in virtual time: 320 judgements of 0.2 s, 16 at once, in at most 1.25 times 4 s."""
    judge = PairwiseJudge("j", Limited(ScriptedChat(_first, delay=0.2), Limits(concurrency=16)))
    verdicts, seconds = play(judge.verdicts([Case(PERSON, LONE, str(i), "y") for i in range(320)]))
    assert len(verdicts) == 320 and seconds <= 1.25 * 4


def test_progress_counts_cases() -> None:
    done: list[int] = []
    PairwiseJudge("j", ScriptedChat(_first)).judge([Case(PERSON, LONE, "x", "y")] * 3, done.append)
    assert sum(done) == 3


def test_fingerprints_tell_judges_apart() -> None:
    model = ScriptedChat(_first)
    prints = [PairwiseJudge("j", model), PairwiseJudge("j", model, True), PairwiseJudge("j", model, how=Asking(seed=1))]
    assert len({tuple(j.fingerprint.items()) for j in prints}) == 3
