"""Environment, users and reward: how dialogues go on and end, and what becomes of failed verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from pamdp.env.dialogue import DialogueEnv
from pamdp.env.reward import Reward
from pamdp.env.user import RecordedUser
from pamdp.errors import JudgeError
from pamdp.judges.base import Case, Verdict
from pamdp.types import Dialogue, History, Message, Persona, TimeStep, Turn

ANA = Persona("Ana", "brief")
RECORD = Dialogue(
    "d1",
    "u1",
    ANA,
    (
        Turn("q0", "good0", "bad0", "rejected"),
        Turn("q1", "good1", inferred=Persona("maybe Ana")),
        Turn("q2", "good2", inferred=Persona("Ana")),
    ),
)


class ByName:
    """Likes replies by what they are called; fails on "broken"."""

    name = "by name"
    fingerprint = {"name": "by name"}  # noqa: RUF012

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        if any("broken" in (c.a, c.b) for c in cases):
            raise JudgeError("no verdict")
        self.cases += cases
        return [Verdict(0.7, 0.2, 0.1) if c.a > c.b else Verdict(0.2, 0.8) for c in cases]


class Echo:
    """A user who repeats what was said, three times at most."""

    def __init__(self, key: str) -> None:
        self.key = key

    def start(self) -> History:
        return (Message("user", "hello"),)

    def answer(self, history: History, reply: str) -> History | None:
        if len(history) >= 5:
            return None
        return (*history, Message("assistant", reply), Message("user", f"you said {reply}"))

    def profile(self, history: History) -> Persona:
        return Persona(f"heard {len(history)}")


def _references(*replies: str) -> dict[History, Sequence[str]]:
    return {RECORD.history(t): replies for t in range(3)}


def test_a_recorded_user_says_what_the_record_says() -> None:
    user = RecordedUser(RECORD)
    history = user.start()
    assert history == (Message("user", "q0"),)
    after = user.answer(history, "something else")
    # the rejected branch was taken; the reply is judged, not remembered
    assert after == (Message("user", "q0"), Message("assistant", "bad0"), Message("user", "q1"))
    last = user.answer(after, "x")
    assert last is not None and user.answer(last, "x") is None
    assert {user.profile(h) for h in (history, after, last)} == {ANA}


def test_an_inferred_profile_never_knows_what_comes_later() -> None:
    user = RecordedUser(RECORD, inferred=True)
    assert [user.profile(RECORD.history(t)) for t in range(3)] == [Persona(), Persona("maybe Ana"), Persona("Ana")]
    silent = RecordedUser(Dialogue("d", "u", ANA, (Turn("q", "a"),)), inferred=True)
    assert silent.profile(silent.start()) == ANA  # the record infers nothing anywhere


def _play(env: DialogueEnv) -> list[tuple[int, bool, bool]]:
    """(t, truncated, ended) of every step of one dialogue."""
    moments, out = env.reset(), []
    while moments:
        ((outcome,),) = env.step(moments, [["good"]])
        out.append((moments[0].t, outcome.truncated, outcome.next is None))
        moments = [outcome.next] if outcome.next is not None and not outcome.truncated else []
    return out


@pytest.mark.parametrize(
    ("horizon", "expected"),
    [
        (None, [(0, False, False), (1, False, False), (2, False, True)]),
        (5, [(0, False, False), (1, False, False), (2, False, True)]),
        (3, [(0, False, False), (1, False, False), (2, False, True)]),  # finished at T: terminated, not cut
        (2, [(0, False, False), (1, True, False)]),
        (1, [(0, True, False)]),
    ],
)
def test_the_horizon_truncates_and_a_finished_dialogue_ends(
    horizon: int | None, expected: list[tuple[int, bool, bool]]
) -> None:
    assert _play(DialogueEnv([RecordedUser(RECORD)], Reward(ByName(), _references("b")), horizon)) == expected


def test_a_truncated_outcome_still_has_the_next_moment() -> None:
    env = DialogueEnv([RecordedUser(RECORD)], Reward(ByName(), _references("b")), 1)
    ((outcome,),) = env.step(env.reset(), [["good"]])
    assert outcome.next == TimeStep("d1", 1, RECORD.history(1), ANA)


def test_the_first_alternative_decides_how_it_goes_on() -> None:
    references = {(Message("user", "hello"),): ["b"]}
    env = DialogueEnv([Echo("e1"), Echo("e2")], Reward(ByName(), references))
    moments = env.reset()
    one, two = env.step(moments, [["first", "second"], ["a"]])
    assert len(one) == 2 and len(two) == 1
    assert one[0].next == one[1].next
    assert one[0].next is not None and one[0].next.history[-1].content == "you said first"
    assert one[0].next.privileged == Persona("heard 3") and one[0].next.key == "e1"
    assert two[0].next is not None and two[0].next.history[-1].content == "you said a"
    # rewards go to their own replies: "first" and "second" beat "b", "a" does not
    assert [o.reward for o in (*one, *two)] == pytest.approx([0.55, 0.55, -0.6])


def test_two_users_need_two_keys() -> None:
    with pytest.raises(ValueError, match="share a key"):
        DialogueEnv([Echo("e"), Echo("e")], Reward(ByName(), {}))


def _steps(n: int) -> list[TimeStep]:
    return [TimeStep("d1", 0, RECORD.history(0), ANA)] * n


def test_rewards_are_soft_or_verdicts_and_judged_for_the_person() -> None:
    judge = ByName()
    assert Reward(judge, _references("m"))(_steps(2), ["z", "a"]) == pytest.approx([0.55, -0.6])
    assert judge.cases[0] == Case(ANA, RECORD.history(0), "z", "m")
    assert Reward(judge, _references("m"), soft=False)(_steps(2), ["z", "a"]) == [1.0, -1.0]


def test_several_references_are_averaged() -> None:
    assert Reward(ByName(), _references("a", "z"), soft=False)(_steps(1), ["m"]) == [0.0]
    assert Reward(ByName(), _references("a", "b", "z"), soft=False)(_steps(1), ["m"]) == pytest.approx([1 / 3])


def test_a_failed_verdict_masks_its_own_reply_only_and_is_counted() -> None:
    reward = Reward(ByName(), _references("m"), soft=False)
    assert reward(_steps(4), ["z", "broken", "a", "broken"]) == [1.0, None, -1.0, None]


def test_one_failed_reference_of_two_leaves_the_other() -> None:
    reward = Reward(ByName(), _references("broken", "a"), soft=False)
    assert reward(_steps(1), ["m"]) == [1.0]


def test_without_a_reference_there_is_no_reward() -> None:
    reward = Reward(ByName(), _references())
    assert reward(_steps(2), ["z", "a"]) == [None, None]
