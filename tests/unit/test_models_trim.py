"""Where a reply that was broken off is cut back to."""

import pytest

from pamdp.models.trim import ends_whole, whole_sentences


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
