"""The sample keeps its promises: size, split, balance, and no reply that recites the profile."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

import pamdp.data
from pamdp.data import load_dialogues, load_pairs, load_sample, load_sample_pairs
from pamdp.data.check import check
from pamdp.errors import ConfigError

SAMPLE = Path(pamdp.data.__file__).parent / "sample"
SPLITS = ("train", "test")


@pytest.mark.parametrize(("split", "users", "pairs"), [("train", 96, 2110), ("test", 24, 312), ("all", 120, 2422)])
def test_size(split: str, users: int, pairs: int) -> None:
    dialogues = load_sample(split)
    assert len(dialogues) == len({dialogue.user_id for dialogue in dialogues}) == users
    assert {len(dialogue.turns) for dialogue in dialogues} == {5, 6}
    assert len(load_sample_pairs(split)) == pairs


def test_it_is_what_the_files_hold() -> None:
    assert load_sample("test").dialogues == load_dialogues(SAMPLE / "dialogues.test.jsonl").dialogues
    assert load_sample("test").sha256 == load_dialogues(SAMPLE / "dialogues.test.jsonl").sha256
    assert load_sample_pairs("test").pairs == load_pairs(SAMPLE / "pairs.test.jsonl").pairs
    assert load_sample().dialogues == load_sample("train").dialogues + load_sample("test").dialogues
    assert load_sample().sha256 != load_sample("train").sha256
    with pytest.raises(ConfigError, match="no split 'dev'"):
        load_sample("dev")


def test_train_and_test_share_nobody_and_no_text() -> None:
    train, test = load_sample("train"), load_sample("test")
    assert {d.user_id for d in train}.isdisjoint(d.user_id for d in test)
    assert {d.persona for d in train}.isdisjoint(d.persona for d in test)
    train_pairs, test_pairs = load_sample_pairs("train"), load_sample_pairs("test")
    assert {pair.persona for pair in train_pairs}.isdisjoint(pair.persona for pair in test_pairs)
    assert {pair.history for pair in train_pairs}.isdisjoint(pair.history for pair in test_pairs)
    assert {pair.preferred for pair in train_pairs}.isdisjoint(pair.preferred for pair in test_pairs)
    parts = [load_sample_pairs(part) for part in ("all", "valid", "fresh")]
    everyone = [pair.persona for part in parts for pair in part]
    assert len(everyone) == len(set(everyone)), "every pair has a person of its own"
    assert len({pair.id for part in parts for pair in part}) == len(everyone)


@pytest.mark.parametrize("part", ["valid", "fresh"])
def test_pairs_for_measuring_are_balanced(part: str) -> None:
    report = check(SAMPLE / f"pairs.{part}.jsonl")
    assert report.ok and not report.notes and not report.repaired
    assert report.kinds == dict.fromkeys(("both", "conflict", "content", "style"), 40)
    assert report.twins >= report.pairs / 3
    learned = {pair.history for pair in load_sample_pairs("train")}
    assert learned.isdisjoint(pair.history for pair in load_sample_pairs(part))


def test_every_voice_is_there_twice_in_test() -> None:
    lines = {split: (SAMPLE / f"dialogues.{split}.jsonl").read_text(encoding="utf-8").splitlines() for split in SPLITS}
    voices = {split: Counter(json.loads(line)["voice"] for line in lines[split]) for split in SPLITS}
    assert len(voices["test"]) == 12 and set(voices["test"].values()) == {2} and set(voices["train"].values()) == {8}


@pytest.mark.parametrize("split", SPLITS)
def test_dialogues_are_fair(split: str) -> None:
    report = check(SAMPLE / f"dialogues.{split}.jsonl")
    assert report.ok and not report.notes and not report.repaired
    assert report.labelled_turns == report.turns
    assert report.turns_preferred_longer is not None and 0.45 <= report.turns_preferred_longer <= 0.55
    assert report.parroting == 0 and report.longest_run < 6


@pytest.mark.parametrize("split", SPLITS)
def test_pairs_are_fair(split: str) -> None:
    report = check(SAMPLE / f"pairs.{split}.jsonl")
    assert report.ok and not report.notes and not report.repaired
    assert set(report.kinds) == {"content", "style", "conflict", "both"} and min(report.kinds.values()) >= 60
    assert report.twins == report.pairs
    assert report.pairs_preferred_longer is not None and 0.45 <= report.pairs_preferred_longer <= 0.55
    assert report.pairs_without_persona_word is not None and report.pairs_without_persona_word >= 1 / 3
    assert report.parroting == 0


def test_what_is_inferred_grows_and_never_is_the_profile_itself() -> None:
    for dialogue in load_sample():
        for before, after in pairwise(dialogue.turns):
            assert before.inferred != after.inferred
        assert all(
            turn.inferred.profile and turn.inferred.profile != dialogue.persona.profile for turn in dialogue.turns
        )


def test_both_paths_are_walked() -> None:
    chosen = Counter(turn.chosen for dialogue in load_sample() for turn in dialogue.turns)
    assert 0.6 <= chosen["preferred"] / chosen.total() <= 0.8


def test_a_readme_and_nothing_else_lies_beside_it() -> None:
    names = sorted(path.name for path in SAMPLE.iterdir())
    assert names == [
        "README.md",
        "dialogues.test.jsonl",
        "dialogues.train.jsonl",
        "pairs.fresh.jsonl",
        "pairs.test.jsonl",
        "pairs.train.jsonl",
        "pairs.valid.jsonl",
        "plain.rl.jsonl",
        "plain.test.jsonl",
        "plain.train.jsonl",
        "plain.valid.jsonl",
        "readings.rl-2.jsonl",
        "readings.rl.jsonl",
        "readings.table2.jsonl",
        "readings.test.jsonl",
        "readings.train.jsonl",
        "readings.valid-2.jsonl",
        "readings.valid.jsonl",
    ]
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < 11 * 2**20
