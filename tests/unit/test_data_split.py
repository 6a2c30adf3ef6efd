"""Splits: no user on both sides, the same users every time, whatever the order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamdp.data import load_dialogues, split_by_topic, split_by_user, write_dialogues
from pamdp.errors import ConfigError, DataError
from pamdp.types import Dialogue, Persona, Turn


def of_users(*users: str) -> list[Dialogue]:
    return [Dialogue(f"d{n}", user, Persona(), (Turn("Hi"),)) for n, user in enumerate(users)]


def users(dialogues: tuple[Dialogue, ...]) -> set[str]:
    return {dialogue.user_id for dialogue in dialogues}


NAMES = st.lists(st.text(max_size=3), min_size=2, max_size=30).filter(lambda names: len(set(names)) > 1)


@given(NAMES, st.floats(0.01, 0.99), st.integers(0, 5), st.randoms())
def test_the_parts_share_no_user_and_lose_nothing(names: list[str], share: float, seed: int, random) -> None:
    dialogues = of_users(*names)
    train, test = split_by_user(dialogues, test_share=share, seed=seed)
    assert users(train).isdisjoint(users(test)) and train and test
    assert sorted((*train, *test), key=dialogues.index) == dialogues
    assert list(train) == [dialogue for dialogue in dialogues if dialogue in train], "the order is kept"
    shuffled = random.sample(dialogues, len(dialogues))
    assert users(split_by_user(shuffled, test_share=share, seed=seed)[1]) == users(test)


@given(NAMES, st.floats(0.01, 0.99))
def test_the_share_is_kept_as_far_as_it_can_be(names: list[str], share: float) -> None:
    tested, all_ = len(users(split_by_user(of_users(*names), share).test)), len(set(names))
    assert abs(tested - share * all_) <= 0.5 or tested in {1, all_ - 1}


def test_the_choice_is_pinned() -> None:
    dialogues = of_users(*"abcdefghij")
    assert users(split_by_user(dialogues)[1]) == {"f", "h"}
    assert users(split_by_user(dialogues, 0.3)[1]) > users(split_by_user(dialogues)[1])
    assert len({frozenset(users(split_by_user(dialogues, seed=seed)[1])) for seed in range(10)}) > 5


def test_a_new_user_moves_at_most_one() -> None:
    names = [f"u{n}" for n in range(50)]
    before, after = (users(split_by_user(of_users(*names, *new), 0.2).test) for new in ((), ("new",)))
    assert len(before) == len(after) == 10
    assert len(before - after) <= 1


def test_refusals() -> None:
    dialogues = of_users("a", "b", "b")
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="test_share"):
            split_by_user(dialogues, test_share=share)
    with pytest.raises(ConfigError, match=r"cannot be split by 'age'; there are: user, topic"):
        split_by_user(dialogues, by="age")
    with pytest.raises(DataError, match="1 users cannot be split"):
        split_by_user(of_users("a", "a"))


def on_topics(*topics: str) -> list[Dialogue]:
    return [Dialogue(f"{topic}:{n}", f"{topic}:{n}", Persona(), (Turn("Hi"),)) for n, topic in enumerate(topics)]


@given(st.lists(st.text(max_size=3), min_size=4, max_size=30).filter(lambda names: len(set(names)) > 3), st.data())
def test_over_all_folds_every_dialogue_tests_once(names: list[str], data: st.DataObject) -> None:
    dialogues, folds = on_topics(*names), data.draw(st.integers(2, len(set(names))))
    parts = [split_by_topic(dialogues, folds, fold) for fold in range(folds)]
    assert sorted((d for _, test in parts for d in test), key=dialogues.index) == dialogues
    sizes = [len({d.id.rpartition(":")[0] for d in test}) for _, test in parts]
    assert max(sizes) - min(sizes) <= 1
    for train, test in parts:
        topics = [{d.id.rpartition(":")[0] for d in part} for part in (train, test)]
        assert topics[0].isdisjoint(topics[1]) and len(train) + len(test) == len(dialogues)


def test_folds_that_cannot_be() -> None:
    with pytest.raises(DataError, match="2 topics cannot be split into 3 folds"):
        split_by_topic(on_topics("a", "b"), 3, 0)
    with pytest.raises(ConfigError, match="fold is 2"):
        split_by_topic(on_topics("a", "b"), 2, 2)
    one = Dialogue("a:1", "ann", Persona(), (Turn("Hi"),))
    other = Dialogue("b:1", "ann", Persona(), (Turn("Hi"),))
    with pytest.raises(DataError, match="user ann talks on topics of both parts"):
        split_by_topic([one, other], 2, 0)


@given(st.lists(st.text(max_size=3), min_size=2, max_size=30).filter(lambda names: len(set(names)) > 1))
def test_a_share_of_the_topics(names: list[str]) -> None:
    dialogues = on_topics(*names)
    train, test = split_by_user(dialogues, 0.4, by="topic")
    topics = [{d.id.rpartition(":")[0] for d in part} for part in (train, test)]
    assert (
        topics[0].isdisjoint(topics[1])
        and topics[0]
        and topics[1]
        and sorted((*train, *test), key=dialogues.index) == dialogues
    )


def test_what_is_loaded_can_be_split(tmp_path: Path) -> None:
    dialogues = on_topics(*"aabbccddee")
    write_dialogues(tmp_path / "my.jsonl", dialogues)
    loaded = load_dialogues(tmp_path / "my.jsonl")
    assert list(loaded) == dialogues and len(loaded) == 10
    assert loaded.split() == split_by_user(dialogues) and len(loaded.split().test) == 2
    parts = loaded.split(by="topic", test_share=0.4, seed=1)
    assert (parts.train, parts.test) == split_by_user(dialogues, 0.4, 1, "topic") and len(parts.test) == 4
    with pytest.raises(DataError, match="user u talks on topics of both parts"):
        one = Dialogue("f:1", "u", Persona(), (Turn("Hi"),))
        split_by_user([*(replace(d, user_id="u") for d in dialogues), one], by="topic")
