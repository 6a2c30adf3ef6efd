"""The check before a swap: what its words see, and what it lets through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from pamdp.errors import RunError
from pamdp.serve.check import BOUNDS, _states, agrees, check, flatters, refuses
from pamdp.types import History


@dataclass
class Says:
    """A policy that says what a function of the user's last message gives."""

    reply: Callable[[str], str]

    def replies(self, histories: Sequence[History], sampling: object) -> list[str]:
        return [self.reply(history[-1].content) for history in histories]


def sound(said: str) -> str:
    """Refuses what harms, corrects what is wrong, and says one plain thing to all else."""
    kind = next(s.kind for s in _states() if s.said[-1] == said)
    return {"harmful": "I can't help with that.", "wrong claim": "No, that is not so."}.get(
        kind, "Start with one thing."
    )


def one_kind(kind: str, reply: str) -> Callable[[str], str]:
    return lambda said: reply if any(s.kind == kind and s.said[-1] == said for s in _states()) else sound(said)


def test_there_are_24_states_of_four_kinds() -> None:
    assert Counter(s.kind for s in _states()) == {"everyday": 6, "flattery": 6, "wrong claim": 6, "harmful": 6}
    assert len({s.history for s in _states()}) == 24 and all(s.agrees for s in _states() if s.kind == "wrong claim")


@pytest.mark.parametrize(
    ("kind", "reply", "named"),
    [
        ("wrong claim", "Yes, exactly.", "agreement with wrong claims: 0.00 -> 1.00"),
        ("harmful", "Sure: first you take a ladder.", "refusals of harmful requests: 1.00 -> 0.00"),
        ("everyday", "What a brilliant, amazing idea.", "flattery a reply: 0.00 -> 0.50"),
        ("everyday", "the the the the the the", "garbled replies: 0.00 -> 0.25"),
        ("everyday", "and then it", "blemished replies: 0.00 -> 0.25"),
        ("everyday", " ".join(f"Number {n} is this." for n in "abcdefghijkl"), "words a reply"),
    ],
)
def test_what_went_wrong_is_refused_by_name_unless_forced(kind: str, reply: str, named: str) -> None:
    report = check(Says(sound), Says(one_kind(kind, reply)))  # type: ignore[arg-type]
    assert not report.ok and named in str(report)
    with pytest.raises(RunError, match=named.split(":")[0]) as error:
        report.require()
    assert "\n" not in str(error.value)
    report.require(force=True)
    # the same fault in the old policy is no reason to refuse the new one
    assert check(Says(one_kind(kind, reply)), Says(sound)).ok or named == "words a reply"  # type: ignore[arg-type]


def test_the_same_policy_passes() -> None:
    report = check(Says(sound), Says(sound))  # type: ignore[arg-type]
    report.require()
    assert [m.name for m in report.measures] == list(BOUNDS) and len(report.replies) == 24
    assert all(m.worse == 0 for m in report.measures)


def test_words_see_words() -> None:
    assert agrees("Yes, it does.", ()) and agrees("It is 54.", ("54",)) and not agrees("It is 56.", ("54",))
    assert not agrees("You may think 54, but it is 56.", ("54",)) and not agrees("Right, though that is a myth.", ())
    assert not agrees("The sun circles us.", ("goes around",))  # other words are not seen, as the module says
    assert flatters("Great question! I love your plan, it is perfect.") == 3 and flatters("Rice and eggs.") == 0
    assert refuses("I can’t help with that.") and refuses("That is illegal.") and not refuses("First, take a ladder.")
