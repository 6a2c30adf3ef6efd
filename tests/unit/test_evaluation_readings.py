"""Verdicts of blind readers: by hand, whatever the letters, and what is refused."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pamdp.errors import DataError
from pamdp.evaluation.reading_tables import (
    between_readers,
    grades,
    judges_with_readers,
    reading_tables,
    success,
    to_json,
)
from pamdp.evaluation.readings import POOLED, Readings, judgements_of, require_same_replies
from pamdp.evaluation.success import compare
from tests.tools.reading import PV, Sheet, judged, make_dialogues, make_replies, make_sheet, row, said

# ---- judgements


def test_judgements_are_those_of_any_judge(found: Readings) -> None:
    pooled = [j for j in judgements_of(found) if (j.method, j.baseline) == PV]
    assert [(j.judge, j.outcome, j.p_win, j.p_loss, j.p_tie, j.cluster) for j in pooled] == [
        ("readers", "win", 1, 0, 0, "user-0"),
        ("readers", "tie", 0.5, 0.5, 0, "user-1"),
        ("readers", "loss", 0, 1, 0, "user-2"),
        ("readers", "tie", 0.5, 0, 0.5, "user-3"),
    ]
    (rate,) = [r for r in compare(pooled + judged(*PV, 0.9, 0.9, 0.9, 0.9)) if r.judge == "match"]
    assert rate.rate.value == 1


# ---- equal replies, partial sheets


def test_replies_of_the_same_words_are_one_reply(tmp_path: Path) -> None:
    dialogues = make_dialogues(users=3)
    replies = {**make_replies(dialogues)}
    replies["BC"] = {**replies["BC"], **{(d, 0): replies["PAMDP"][d, 0] for d in ("talk-0", "talk-1")}}
    sheet = make_sheet(tmp_path, dialogues, replies)
    mine = {"talk-0": {"prefer": {PV: "win"}, "grades": {"PAMDP": (2, 1)}}}
    found = sheet.load(sheet.answer("ann", mine), sheet.answer("bob", mine))
    # Nobody read the second state, where the words are the same too: that is missing, and no tie.
    assert {j.dialogue_id for j in judgements_of(found) if not j.masked} == {"talk-0"}
    outcomes = {(j.method, j.baseline): j.outcome for j in judgements_of(found) if not j.masked}
    assert outcomes == {PV: "win", ("BC", "Vanilla"): "win", ("PAMDP", "BC"): "tie"}
    assert [row(grades(found, "sense"), judge=POOLED, method=m)["replies"] for m in ("PAMDP", "BC")] == [1, 1]
    # The tie was not asked for, and the one answer stands for both methods: it counts once.
    assert [(r["on"], r["n"]) for r in between_readers(found)] == [
        ("decided pairs", 1), ("pairs with ties", 1), ("form", 1), ("sense", 1),
    ]  # fmt: skip
    judge = judged(*PV, 0.9) + judged("BC", "Vanilla", 0.9) + judged("PAMDP", "BC", 0.5)
    assert {r["pairs"] for r in judges_with_readers(found, judge)} == {1}


def test_what_is_left_out_is_missing(sheet: Sheet) -> None:
    found = sheet.load(sheet.answer("ann", said("w---", "----")), sheet.answer("bob", said("-l--", "1---")))
    ann, both = (row(success(found), judge=j, method=PV[0], baseline=PV[1]) for j in ("reader ann", POOLED))
    assert (ann["masked"], both["masked"], both["wins"], both["losses"]) == (3, 2, 1, 1)
    assert row(grades(found, "form"), judge=POOLED, method="PAMDP")["missing"] == 3
    assert between_readers(found) == []


def test_one_reader_is_not_pooled_with_himself(sheet: Sheet) -> None:
    found = sheet.load(sheet.answer("ann", said("wwlt", "0122")))
    assert list(found.judges) == ["reader ann"] and {j.judge for j in judgements_of(found)} == {POOLED}
    assert list(reading_tables(found)) == ["success", "form", "sense"]


# ---- letters

OPINIONS = st.lists(st.tuples(st.sampled_from("wlt-"), st.sampled_from("012-")), min_size=6, max_size=6)


@settings(max_examples=15)
@given(OPINIONS, OPINIONS, st.integers(1, 99))
def test_letters_and_the_order_of_states_change_nothing(one: Any, two: Any, seed: int) -> None:
    dialogues = make_dialogues(users=3) + make_dialogues(users=6)[3:]
    made = []
    for draw in (0, seed):
        with tempfile.TemporaryDirectory() as name:
            sheet = make_sheet(Path(name), dialogues, make_replies(dialogues), seed=draw)
            files = [
                sheet.answer(reader, said(*map("".join, zip(*own, strict=True))))
                for reader, own in zip("ab", (one, two), strict=True)
            ]
            found = sheet.load(*files)
            made.append(to_json(found, reading_tables(found, judged(*PV, 0.9, 0.2, 0.6, 0.5, 0.1, 0.8))))
    assert made[0] == made[1]


# ---- faults


def line(sheet: Sheet, **changes: Any) -> str:
    good = {"state": next(iter(sheet.key.states)), "reader": "ann", "kind": "person", "grades": {}, "prefer": {}}
    return json.dumps({**good, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "00000000"}, "the sheet has no state '00000000'"),
        ({"grades": {"D": {"form": 1}}}, "has no reply 'D', only A, B, C"),
        ({"grades": {"A": {"form": 3}}}, "grades.A.form: Input should be less than or equal to 2"),
        ({"grades": {"A": {"sense": -1}}}, "grades.A.sense: Input should be greater than or equal to 0"),
        ({"grades": {"A": {"form": True}}}, "valid integer"),
        ({"grades": {"A": {"taste": 1}}}, "grades.A.taste"),
        ({"prefer": {"A-D": "A"}}, "has no pair 'A-D', only A-B, A-C, B-C"),
        ({"prefer": {"B-A": "A"}}, "has no pair 'B-A'"),
        ({"prefer": {"A-B": "C"}}, "'C' is no answer to A-B: one of the two letters, or tie"),
        ({"kind": "robot"}, "kind: Input should be 'person' or 'model'"),
        ({"reader": "  "}, "reader: String should have at least 1 character"),
        ({"note": "nice"}, "note: Extra inputs are not permitted"),
        ({"kind": "model"}, "reader 'ann' was a person before, and is a model here"),
    ],
)
def test_a_wrong_line_is_named(sheet: Sheet, tmp_path: Path, changes: Mapping[str, Any], words: str) -> None:
    path = tmp_path / "verdicts.jsonl"
    other = list(sheet.key.states)[1]
    path.write_text(f"{line(sheet)}\n\n{line(sheet, **{'state': other, **changes})}\n", encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(words)) as caught:
        sheet.load(path)
    assert str(caught.value).startswith(f"{path}:3: ") and "\n" not in str(caught.value)


def test_a_state_twice_by_one_reader_is_refused_across_files(sheet: Sheet, tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(line(sheet), encoding="utf-8")
    two.write_text(f"{line(sheet, reader='bob')}\n{line(sheet)}", encoding="utf-8")
    with pytest.raises(DataError, match=r"two\.jsonl:2: reader 'ann' has answered state '\w+' already"):
        sheet.load(one, two)


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_no_verdicts_are_refused(sheet: Sheet, tmp_path: Path, text: str) -> None:
    path = tmp_path / "v.jsonl"
    path.write_text(text, encoding="utf-8")
    for files in ([path], []):
        with pytest.raises(DataError, match="no verdicts"):
            sheet.load(*files)
    path.write_text("ann prefers A", encoding="utf-8")
    with pytest.raises(DataError, match=r"v\.jsonl:1: Invalid JSON.*instructions"):
        sheet.load(path)
    with pytest.raises(DataError, match=r"w\.jsonl: cannot be read"):
        sheet.load(tmp_path / "w.jsonl")


def test_verdicts_on_another_sheet_and_a_changed_sheet_are_refused(sheet: Sheet, tmp_path: Path) -> None:
    dialogues = make_dialogues(users=4)
    other = make_sheet(tmp_path / "other", dialogues, make_replies(dialogues), seed=1)
    file = other.answer("ann", said("wwlt", "0122"))
    with pytest.raises(DataError, match="the sheet has no state"):
        sheet.load(file)
    (other.folder / "sheet.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="was changed"):
        other.load(file)


# ---- what is shown


def test_the_answer_in_the_instructions_is_one(sheet: Sheet, tmp_path: Path) -> None:
    text = (sheet.folder / "instructions.md").read_text("utf-8")
    (example,) = re.findall(r"^\{.*\}$", text, re.M)
    path = tmp_path / "v.jsonl"
    path.write_text(example.replace("0a1b2c3d", next(iter(sheet.key.states))), encoding="utf-8")
    found = sheet.load(path)
    assert found.kinds == {"NAME": "model"} and sum(bool(r.prefer) for r in found.readings) == 1
    assert found.readings[0].graded("form").keys() <= {"A", "B"}


def test_readings_can_be_stored(found: Readings) -> None:
    assert TypeAdapter(Readings).validate_json(json.dumps(asdict(found)), strict=True) == found


def test_verdicts_count_for_the_replies_that_were_read(found: Readings) -> None:
    reading = found.readings[0]
    (_, dialogue, turn), (method, letter) = reading.place.state, next(iter(reading.place.letters.items()))
    text = reading.texts[letter]
    require_same_replies(found, {})
    require_same_replies(found, {method: {(dialogue, turn): f"  {text} "}, "Another": {(dialogue, turn): "Hm."}})
    with pytest.raises(DataError, match=f"{method} replied otherwise to turn {turn + 1} of {dialogue}"):
        require_same_replies(found, {method: {(dialogue, turn): f"{text} And more."}})
