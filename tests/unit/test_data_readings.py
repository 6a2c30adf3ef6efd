"""Replies that blind readers graded: what several readers say together, by hand, and which lines are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pamdp.data.readings import Answers, ReadState, decided_pairs, load_read_states, read_by
from pamdp.errors import DataError
from pamdp.types import Message, Persona
from tests.tools.read_states import read_state

LINE: dict[str, Any] = {
    "id": "talk-1/2", "user_id": "ana", "profile": "Ana is a nurse.", "personality": "Curt.",
    "history": [
        {"role": "user", "content": "Tea?"},
        {"role": "assistant", "content": "Black?"},
        {"role": "user", "content": "Green."},
    ],
    "replies": {"A": {"text": "Fine.", "by": ["clone"]}, "B": {"text": "No green tea.", "by": ["bare", "base"]}},
    "readings": [
        {"reader": "ann", "kind": "person", "grades": {"A": {"form": 2, "sense": 0}}, "prefer": {"A-B": "tie"}},
        {"reader": "bob", "kind": "model"},
    ],
}  # fmt: skip


def _file(tmp_path: Path, *lines: Mapping[str, Any] | str) -> Path:
    path = tmp_path / "readings.jsonl"
    path.write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines), encoding="utf-8")
    return path


# ---- the layout


def test_a_line_is_a_state(tmp_path: Path) -> None:
    (state,) = load_read_states(_file(tmp_path, LINE))
    assert (state.id, state.user_id, state.persona) == ("talk-1/2", "ana", Persona("Ana is a nurse.", "Curt."))
    assert state.history == (Message("user", "Tea?"), Message("assistant", "Black?"), Message("user", "Green."))
    assert {k: (r.text, r.by) for k, r in state.replies.items()} == {
        "A": ("Fine.", ("clone",)), "B": ("No green tea.", ("bare", "base")),
    }  # fmt: skip
    assert state.readings == (
        Answers(reader="ann", kind="person", grades={"A": {"form": 2, "sense": 0}}, prefer={"A-B": "tie"}),
        Answers(reader="bob", kind="model"),
    )


def test_what_may_be_missing_is_empty(tmp_path: Path) -> None:
    short = {k: v for k, v in LINE.items() if k not in ("profile", "personality")}
    (state,) = load_read_states(_file(tmp_path, {**short, "readings": [], "replies": {"A": {"text": "Fine."}}}))
    assert (state.persona, state.readings, state.replies["A"].by) == (Persona(), (), ())


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    states = [
        read_state("1", ["Yes.", "“No” 🙂\n\u2028"], [{"A-B": "A"}], by=[["clone, drawn"], ["bare"]]),
        read_state("2", ["Yes.", "No."], grades=[{"B": {"form": 1}}, {}], messages=("Tea?", "No.", "Why?")),
    ]
    lines = [json.dumps(s.model_dump(mode="json"), ensure_ascii=False) for s in states]
    assert load_read_states(_file(tmp_path, lines[0], "", lines[1])) == states


# ---- what readers say together


def test_shares_of_pairs_by_hand() -> None:
    said = [{"A-B": "A", "B-C": "tie"}, {"A-B": "tie"}, {"A-B": "B", "A-C": "C"}, {"A-B": "A"}]
    found = read_state("1", ["a", "b", "c"], said).pairs()
    assert found == [("A", "B", 0.625), ("B", "C", 0.5), ("A", "C", 0.0)]
    assert (found[0].a, found[0].b, found[0].share) == ("A", "B", 0.625)


def test_nobody_compared_anything() -> None:
    assert read_state("1", ["a", "b"], grades=[{"A": {"form": 1}}]).pairs() == []
    assert read_state("1", ["a", "b"]).pairs() == []


def test_grades_are_the_mean_of_those_who_gave_one() -> None:
    state = read_state(
        "1", ["a", "b"], grades=[{"A": {"form": 2, "sense": 0}}, {"A": {"form": 1}, "B": {"sense": 2}}, {}]
    )
    assert (state.grade("form", "A"), state.grade("sense", "A")) == (1.5, 0.0)
    assert (state.grade("form", "B"), state.grade("sense", "B")) == (None, 2.0)


def test_decided_pairs_are_those_that_most_readers_decided() -> None:
    texts, talk = ["first", "second", "third"], ("Tea?", "Yes.", "Green.")
    said = [
        {"A-B": "B", "A-C": "A", "B-C": "B"},
        {"A-B": "B", "A-C": "tie", "B-C": "C"},
        {"A-B": "A", "A-C": "tie", "B-C": "tie"},
    ]
    found = decided_pairs([read_state("talk/2", texts, said, messages=talk), read_state("none", texts)])
    assert [(p.id, p.preferred, p.rejected) for p in found] == [
        ("talk/2:A-B", "second", "first"), ("talk/2:A-C", "first", "third"),
    ]  # fmt: skip
    assert {p.persona for p in found} == {Persona("Keeps goat talk/2.", "Dry.")}
    assert found[0].history == (Message("user", "Tea?"), Message("assistant", "Yes."), Message("user", "Green."))
    assert found[0].twin is None


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        (["clone"], ["bare"], "two policies"),
        (["clone, drawn"], ["clone"], "one policy"),
        (["clone, drawn", "bare"], ["rl", "bare, drawn"], "one policy"),
        (["clone"], ["cloned"], "two policies"),
    ],
)
def test_the_kind_says_whether_one_policy_wrote_both(a: list[str], b: list[str], kind: str) -> None:
    (pair,) = decided_pairs([read_state("1", ["a", "b"], [{"A-B": "B"}], by=[a, b])])
    assert pair.kind == kind


def _read(*readers: tuple[str, str]) -> ReadState:
    return read_state("1", ["a", "b"]).model_copy(
        update={"readings": tuple(Answers(reader=name, kind=kind) for name, kind in readers)}  # type: ignore[arg-type]
    )


def test_who_read_is_counted_once_over_all_states() -> None:
    both = [_read(("ann", "person"), ("bob", "person"), ("m", "model")), _read(("ann", "person"), ("n", "model"))]
    assert read_by(both) == "read blind by 2 people and 2 language models"
    assert read_by([_read(("m", "model"), ("n", "model"))]) == "read blind by 2 language models"
    assert read_by([_read(("ann", "person"), ("bob", "person"))]) == "read blind by 2 people"
    assert read_by([_read()]) == read_by([]) == "read blind by nobody"


# ---- lines that are refused


def _read_as(**said: Any) -> dict[str, Any]:
    return {"readings": [{"reader": "ann", "kind": "person", **said}]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"note": "nice"}, "note: Extra inputs are not permitted"),
        ({"id": 7}, "id: Input should be a valid string"),
        ({"user_id": None}, "user_id: Input should be a valid string"),
        ({"history": []}, "the last message must be the user's"),
        ({"history": LINE["history"][:2]}, "the last message must be the user's"),
        ({"history": LINE["history"][1:]}, "message 1 must be a text by the user"),
        ({"replies": {"A": "Fine.", "B": {"text": "No."}}}, "replies.A: "),
        ({"replies": {"A": {"text": "Fine.", "model": "x"}}}, "replies.A.model: Extra inputs are not permitted"),
        (_read_as(prefer={"A-C": "A"}), "'A-C' is answered, and is no pair of the replies"),
        (_read_as(grades={"C": {"form": 1}}), "'C' is graded, and there is no such reply"),
        (_read_as(grades={"A": {"form": 3}}), "readings.0.grades.A.form: Input should be less than or equal to 2"),
        (_read_as(grades={"A": {"sense": -1}}), "readings.0.grades.A.sense: Input should be greater than or equal"),
        (_read_as(grades={"A": {"taste": 1}}), "readings.0.grades.A.taste"),
        (_read_as(kind="robot"), "readings.0.kind: Input should be 'person' or 'model'"),
        (_read_as(reader=" "), "readings.0.reader: String should have at least 1 character"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, changes: Mapping[str, Any], words: str) -> None:
    path = _file(tmp_path, LINE, "", {**LINE, **changes})
    with pytest.raises(DataError, match=re.escape(words)) as caught:
        load_read_states(path)
    said = str(caught.value)
    assert said.startswith(f"{path}:3: ") and "pamdp judge collect" in said and "\n" not in said


@pytest.mark.parametrize(
    "changes",
    [
        _read_as(prefer={"A-B": "C"}),
        _read_as(prefer={"A-B": "a"}),
        _read_as(prefer={"A": "A"}),
        _read_as(prefer={"A-A": "A"}),
        {**_read_as(prefer={"A-B-C": "A"}), "replies": {x: {"text": x} for x in "ABC"}},
    ],
)
def test_an_answer_that_is_none_is_refused(tmp_path: Path, changes: Mapping[str, Any]) -> None:
    path = _file(tmp_path, LINE, {**LINE, **changes})
    with pytest.raises(DataError, match=r"readings\.jsonl:2: "):
        load_read_states(path)


def test_what_is_no_file_of_readings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"readings\.jsonl:2: Invalid JSON"):
        load_read_states(_file(tmp_path, LINE, "ann prefers A"))
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read"):
        load_read_states(tmp_path / "none.jsonl")
