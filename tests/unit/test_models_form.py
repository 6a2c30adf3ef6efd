"""The form of replies by rule: where a broken-off one is cut back to, and which are garbled or blemished."""

import pytest

from pamdp.models.form import ends_whole, form, shares, whole_sentences


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Rice is easy. You could also try some of", "Rice is easy."),
        ("Really? Then go! And take a", "Really? Then go!"),
        ('She said "wait." Then she left and', 'She said "wait."'),
        ("Ask Dr. Brown about the", "Ask Dr. Brown about the"),  # no sentence ends: nothing to go back to
        ("Good. Ask Mrs. Lee or", "Good."),
        ("Do this.\n1. Cut the bread.\n2. Put", "Do this.\n1. Cut the bread."),
        ("It costs 3.50 or", "It costs 3.50 or"),
        ("You and I. That is", "You and I."),
        ("Well... maybe", "Well..."),
        ("All of it is whole.", "All of it is whole."),
        ("", ""),
    ],
)
def test_what_is_left(text: str, kept: str) -> None:
    assert whole_sentences(text) == kept


def test_an_end_is_told_from_a_stop() -> None:
    assert ends_whole("Rice is easy.") and ends_whole('She said "go!" ') and ends_whole("sure, no problem!")
    assert not ends_whole("Rice is easy. You could") and not ends_whole("Ask Dr.") and not ends_whole("")


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("the tea of the tea of the tea of the tea of the tea.", 0),
        (", 90.1256 %, 1.5 %, 1.5 %, 1.5 %", 0),
        ("...", 0),
        ("", 0),
        (", and that is why rice is a good choice.", 1),
        ("Rice is easy on the stomach. You could also try some of", 1),
        ("Take it slow", 1),
        ("rice and an egg, easy!", 2),
        ('"Go," she said.', 2),
        ("$20 is fair.", 2),
        ("You can run for sixteen weeks in half a week.", 2),
        ("It is good, and it is warm, and it is soft.", 2),  # three of eleven pairs stood before
    ],
)
def test_the_grade_of_form(text: str, grade: int) -> None:
    assert form(text) == grade


def test_shares_of_broken_replies() -> None:
    assert shares(["All good.", "Not", ", no.", ""]) == {"garbled": 0.25, "blemished": 0.5}
    assert shares([]) == {"garbled": 0.0, "blemished": 0.0}
