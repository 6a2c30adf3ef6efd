"""The audit of simulated users, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pamdp.evaluation.simulator import audit, content_words
from pamdp.evaluation.transcripts import MessageNote, Transcript
from pamdp.types import Message, Persona

ANA = Persona("Ana is a nurse. She keeps bees. She works nights. She sings jazz.", "brief")


def _played(*said: str, persona: Persona = ANA) -> Transcript:
    messages = [m for text in said for m in (Message("user", text), Message("assistant", "As an AI, I am a nurse."))]
    return Transcript("d", "u", persona, tuple(messages[:-1]), ())


def test_what_is_told_early_leaks_and_what_is_told_in_time_does_not() -> None:
    slow = audit([_played("I, Ana, am a nurse.", "My bees keep me busy: I keep a lot.", "On nights I work.")])
    assert slow.told == (0.25, 0.5, 0.75) and slow.leaked == (0, 0, 0)
    fast = audit([_played("Ana here, nurse; I keep bees, work nights and sing jazz.", "Yes.")])
    assert fast.told == (1.0, 1.0) and fast.leaked == pytest.approx((0.75, 0.5))
    assert audit([_played("Ana, a nurse.", "I keep bees.")], pace=0.5).leaked == pytest.approx((0, 0.25))


def test_turns_are_averaged_over_the_dialogues_that_have_them() -> None:
    found = audit([_played("Ana, a nurse."), _played("Hello.", "I keep bees.")])
    assert found.told == (0.125, 0.25) and found.messages == 3


def test_role_breaks_and_repetition_are_the_user_s_own() -> None:
    found = audit([_played("Hello there you.", "As an AI, no.", "hello, there YOU!", "Tea?")])
    assert found.role_breaks == 0.25 and found.repetitions == pytest.approx(1 / 3)


def test_what_was_rejected_is_counted_and_a_stock_message_is_nobody_s_own() -> None:
    """What breaks the part is never said: only what was rejected shows that the model breaks it."""
    said = (
        MessageNote(),
        MessageNote(rejected=("out of the part", "too long")),
        MessageNote(True, ("out of the part",) * 3),
        MessageNote(),
    )
    played = _played("Hello there you.", "I keep bees.", "I keep bees. Ana, a nurse.", "I keep bees.")
    noted = replace(played, said=said)
    found = audit([noted])
    assert found.rejected == {"out of the part": 4, "too long": 1} and found.role_breaks == 0
    # Three messages were asked for after the recorded first one; two came of seven answers.
    assert (found.messages, found.stock, found.answers) == (3, 1, 7)
    assert audit([noted], opened=True).answers == 8
    # The stock message tells nothing of Ana, and is not what "I keep bees." repeats.
    assert found.told == (0, 0.25, 0.25, 0.25) and found.repetitions == 0.5
    assert audit([played]).answers == 0 and audit([played]).rejected == {}


def test_a_user_without_a_profile_cannot_leak() -> None:
    found = audit([_played("Hello.", persona=Persona())])
    assert found.leaked == () and found.messages == 1
    with pytest.raises(ValueError, match="no dialogue"):
        audit([])


def test_words_that_tell_something() -> None:
    assert content_words("She keeps TWO bees, and a café.") == {"keep", "bee", "café"}
