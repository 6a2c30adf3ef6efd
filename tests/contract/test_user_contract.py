"""What holds for every user: one suite, run on each of them, through the environment that asks them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import pytest

from pamdp.env.dialogue import DialogueEnv
from pamdp.env.profile import Profiler
from pamdp.env.simulated import SimulatedUser
from pamdp.env.user import HumanUser, RecordedUser, User
from pamdp.testing import check_user
from pamdp.types import Dialogue, Message, Persona, Turn
from tests.tools.scripted import ScriptedChat

ANA = Persona("Ana is a nurse. She works nights.", "She is brief.")
RECORD = Dialogue("d", "u", ANA, tuple(Turn(f"question {t}", f"reply {t}") for t in range(4)))


def _says(messages: Sequence[Message], seed: int) -> str:
    return f"I said that, number {seed % 97}."


def _human() -> HumanUser:
    said = iter(["hello", "go on", "and then?", ""])
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


@pytest.mark.parametrize("make", USERS.values(), ids=USERS)
def test_it_keeps_the_contract(make: Callable[[], User]) -> None:
    check_user(make)


class Loose(RecordedUser):
    """A recorded user some of whose promises are broken."""

    def __init__(self, **broken: object) -> None:
        super().__init__(RECORD)
        vars(self).update(broken)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"start": lambda: RECORD.history(1)}, "begins and ends with the user"),
        ({"start": lambda: (Message("user", " "),)}, "without words"),
        ({"answer": lambda h, reply: RECORD.history(1)}, "begins and ends"),
        ({"answer": lambda h, reply: (Message("user", reply), Message("assistant", "."), h[0])}, "extends"),
        ({"answer": lambda h, r: (*h, Message("assistant", r.upper()), h[0])}, "holds what was replied"),
        ({"start": lambda n=count(): (Message("user", f"{next(n)}"),), "answer": lambda h, r: None}, "the same again"),
        ({"profile": lambda h: None}, "a profile is there"),
    ],
)
def test_who_breaks_the_contract_is_told_how(broken: dict[str, object], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_user(lambda: Loose(**broken))


def test_a_person_who_says_nothing_or_is_gone_ends_the_dialogue_for_good() -> None:
    def gone(reply: str | None) -> str:
        raise EOFError

    for ask in (gone, lambda reply: " "):
        with pytest.raises(EOFError):
            HumanUser("d", ask).start()
        assert HumanUser("d", ask).answer((Message("user", "hello"),), "Hi.") is None


def test_a_person_is_shown_every_reply_and_plays_through_the_environment() -> None:
    shown = list[str | None]()
    said = iter(["hello", "go on", ""])

    def ask(reply: str | None) -> str:
        shown.append(reply)
        return next(said)

    env = DialogueEnv([HumanUser("d", ask)])
    (moment,) = env.reset()
    [[first]] = env.step([moment], [["Hi."]])
    assert first.next is not None and first.next.history[-1].content == "go on" and first.reward is None
    [[last]] = env.step([first.next], [["Well."]])
    assert last.next is None and not last.truncated and shown == [None, "Hi.", "Well."]
