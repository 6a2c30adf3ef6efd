"""The plain-talk sample: whole, everyday, split by user, and no reply that gives itself away."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from pamdp.config import DataConfig
from pamdp.data import load_plain
from pamdp.train.factory import load_split
from pamdp.types import Turn

SPLITS = ("train", "test", "valid", "rl")


def _turns(split: str) -> list[Turn]:
    return [turn for d in load_plain(split).dialogues for turn in d.turns]  # type: ignore[arg-type]


def test_it_is_as_large_as_it_says_and_parts_share_no_user() -> None:
    parts = {split: load_plain(split).dialogues for split in SPLITS}
    assert {split: len(part) for split, part in parts.items()} == {"train": 740, "test": 40, "valid": 40, "rl": 160}
    assert len({d.user_id for part in parts.values() for d in part}) == 980
    assert all(
        len(d.turns) == 6 and d.persona.profile and d.persona.personality for part in parts.values() for d in part
    )
    split = load_split(DataConfig(path="plain"))
    assert (split.train, split.test) == (parts["train"], parts["test"])
    assert load_split(DataConfig(path="plain-rl")).train == parts["rl"]


@pytest.mark.parametrize("split", SPLITS)
def test_replies_are_whole_sentences_of_the_length_that_was_asked_for(split: str) -> None:
    for turn in _turns(split):
        assert turn.preferred and turn.rejected and turn.reply == turn.preferred != turn.rejected
        assert 5 <= len(turn.preferred.split()) <= 35 and 4 <= len(turn.rejected.split()) <= 40
        for text in (turn.user, turn.preferred, turn.rejected):
            assert text.isascii() and re.search(r"[.!?)\"']$", text), text


def test_no_text_stands_twice() -> None:
    said = Counter(text for split in SPLITS for t in _turns(split) for text in (t.user, t.preferred))
    assert said.most_common(1)[0][1] == 1


def test_length_does_not_tell_the_preferred_reply() -> None:
    turns = _turns("test")
    longer = sum(len(t.preferred or "") > len(t.rejected or "") for t in turns) / len(turns)
    assert 0.4 <= longer <= 0.65
