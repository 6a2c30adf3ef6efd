"""Measures of texts, by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamdp.errors import DataError
from pamdp.evaluation.text_metrics import describe, distinct, repetition, words


def test_words_are_words_in_any_script() -> None:
    assert words("Don't — émincé 🙂, 2 cups!") == ["don't", "émincé", "2", "cups"]


def test_distinct_counts_over_all_replies() -> None:
    assert distinct(["a b a", "b c"], 1) == 3 / 5
    assert distinct(["a b a", "b c"], 2) == 1.0  # (a b), (b a), (b c): pairs do not cross from reply to reply
    assert distinct(["a b", "a b"], 2) == 0.5
    assert distinct(["", "a"], 2) == 0.0


def test_repetition_is_within_a_reply() -> None:
    assert repetition("a b c a b c") == pytest.approx(1 - 3 / 4)
    assert repetition("a b") == 0.0
    assert repetition("no no no no") == pytest.approx(0.5)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=8))
def test_shares_lie_between_0_and_1(replies: list[str]) -> None:
    assert all(0 <= distinct(replies, n) <= 1 for n in (1, 2))
    assert all(0 <= repetition(reply) < 1 for reply in replies)


def test_a_method_s_replies() -> None:
    found = describe(["a b c", "", "a"], [1.0, None, 2.0], ["x", "y", "y"], n=50)
    assert found.words.value == pytest.approx(4 / 3) and found.words.clusters == 2
    assert found.nll.value == 1.5 and found.nll.n == 2
    assert (found.empty, found.n, found.distinct_1) == (1, 3, 3 / 4)
    assert math.isnan(describe(["a"], [None], ["x"], n=50).nll.value)
    with pytest.raises(DataError):
        describe([], [], [])
