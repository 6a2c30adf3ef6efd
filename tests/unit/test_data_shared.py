"""The loaders on the real data sets, where they lie beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from pamdp.data import load_dialogues, load_pairs, load_personas, split_by_topic, split_by_user
from pamdp.data.check import check
from pamdp.errors import DataError

pytestmark = pytest.mark.shared


def test_prefeval(shared_data: Path) -> None:
    loaded = load_dialogues(shared_data / "prefeval" / "persona_driven")
    assert (loaded.format, len(loaded), sum(len(dialogue.turns) for dialogue in loaded)) == ("prefeval", 715, 3789)
    assert len({dialogue.user_id for dialogue in loaded}) == 715 and not loaded.repaired
    assert {dialogue.id.split(":")[0] for dialogue in loaded} >= {"travel_hotel", "pet_ownership"}
    train, test = split_by_user(loaded.dialogues)
    assert (len(train), len(test)) == (572, 143)
    folds = [split_by_topic(loaded.dialogues, 3, fold)[1] for fold in range(3)]
    assert {d.id for test in folds for d in test} == {d.id for d in loaded} and sum(map(len, folds)) == 715
    assert [len({d.id.split(":")[0] for d in test}) for test in folds] == [5, 5, 5]
    one = load_dialogues(shared_data / "prefeval" / "persona_driven" / "travel_hotel.json")
    assert min(len(dialogue.turns) for dialogue in one) >= 3 and set(one) < set(loaded)


def test_prefeval_options(shared_data: Path) -> None:
    loaded = load_pairs(shared_data / "prefeval" / "mcq")
    assert (loaded.format, len(loaded)) == ("prefeval-mcq", 3 * 715)


def test_spc(shared_data: Path) -> None:
    loaded = load_dialogues(shared_data / "spc" / "Synthetic-Persona-Chat_valid.csv")
    assert (loaded.format, len(loaded), len({dialogue.user_id for dialogue in loaded})) == ("spc", 1000, 979)
    assert loaded.repaired == {
        "openings by User 2 left out": 1,
        "utterances of one speaker in a row, joined": 43,
        "stage directions left out": 55,
        "lines before the first speaker left out": 5,
    }


def test_aloe_persona_pool(shared_data: Path) -> None:
    path = shared_data / "aloe" / "profile.jsonl"
    with pytest.raises(DataError, match=r"profile\.jsonl:6: more than one JSON value on the line"):
        load_personas(path)
    loaded = load_personas(path, skip_bad=True)
    assert len(loaded) == 331 and sum(loaded.repaired.values()) == 1 and not loaded.skipped
    assert loaded.items[5].startswith("He is a 37-year-old") and loaded.items[6].startswith("He is a 46-year-old")
    assert len(load_personas(shared_data / "aloe" / "personality.jsonl")) == 71


def test_check_finds_the_one_fault(shared_data: Path) -> None:
    report = check(shared_data / "aloe")
    assert len(report.problems) == 1 and "profile.jsonl:6" in report.problems[0] and report.texts == 402
    assert check(shared_data / "aloe", skip_bad=True).ok
    assert check(shared_data / "prefeval" / "mcq").ok and check(shared_data / "prefeval" / "persona_driven").ok
