"""What holds for every user: one suite, run on each of them, through the environment that asks them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from pamdp.env.dialogue import DialogueEnv
from pamdp.env.profile import Profiler
from pamdp.env.simulated import SimulatedUser
from pamdp.env.user import HumanUser, RecordedUser, User
from pamdp.llm.scripted import ScriptedChat
from pamdp.types import Dialogue, History, Message, Persona, TimeStep, Turn

ANA = Persona("Ana is a nurse. She works nights.", "She is brief.")
RECORD = Dialogue("d", "u", ANA, tuple(Turn(f"question {t}", f"reply {t}") for t in range(4)))


def _says(messages: Sequence[Message], seed: int) -> str:
    return f"I said that, number {seed % 97}."


def _human() -> HumanUser:
    said = iter(["", "hello", "go on", "and then?", ""])
    return HumanUser("d", lambda reply: next(said))


USERS: dict[str, Callable[[], User]] = {
    "recorded": lambda: RecordedUser(RECORD),
    "human": _human,
    "simulated": lambda: SimulatedUser("d", ANA, ScriptedChat(_says), opening="hello"),
    "simulated, own opening": lambda: SimulatedUser("d", ANA, ScriptedChat(_says)),
    "simulated, inferred": lambda: SimulatedUser(
        "d", ANA, ScriptedChat(_says), profiler=Profiler(ScriptedChat(lambda m, s: "[1] talks"))
    ),
}


@pytest.fixture(params=USERS)
def make(request: pytest.FixtureRequest) -> Callable[[], User]:
    return USERS[request.param]


def _play(user: User, replies: Sequence[str]) -> list[TimeStep]:
    env = DialogueEnv([user])
    moments = env.reset()
    for reply in replies:
        [[outcome]] = env.step(moments[-1:], [[reply]])
        assert outcome.reward is None and not outcome.truncated
        if outcome.next is None:
            break
        moments.append(outcome.next)
    return moments


REPLIES = ("Tea.", "A {soup}.", "No.")


def test_histories_begin_and_end_with_the_user_and_extend_one_another(make: Callable[[], User]) -> None:
    before: History = ()
    for t, moment in enumerate(_play(make(), REPLIES)):
        assert [m.role for m in moment.history] == ["user", "assistant"] * t + ["user"]
        assert moment.history[: len(before)] == before
        assert all(m.content.strip() for m in moment.history) and moment.t == t and moment.key == "d"
        before = moment.history


def test_a_user_who_hears_says_what_was_replied(make: Callable[[], User]) -> None:
    last = _play(make(), REPLIES[:2])[-1]
    if not isinstance(make(), RecordedUser):
        assert [m.content for m in last.history if m.role == "assistant"] == list(REPLIES[:2])


def test_the_same_user_says_the_same_again(make: Callable[[], User]) -> None:
    assert _play(make(), REPLIES) == _play(make(), REPLIES)


def test_a_profile_is_there_at_every_turn(make: Callable[[], User]) -> None:
    for moment in _play(make(), REPLIES):
        assert isinstance(moment.privileged, Persona) and moment.known
