"""Records in files: what is written is read again, what is wrong is named, and what was written before still loads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from pamdp.errors import DataError
from pamdp.evaluation.transcripts import Exchange, MessageNote, Transcript
from pamdp.reproduce.store import AGAIN
from pamdp.stored import read_record, read_records, write_records
from pamdp.types import Message, Persona


@dataclass(frozen=True, slots=True)
class Pear:
    weight: float
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise DataError("a pear weighs something", fix="weigh it again")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    pears, path = [Pear(1.5, ("é\u2028", "b")), Pear(2)], tmp_path / "new" / "pears.jsonl"
    write_records(path, pears)
    assert read_records(path, Pear) == pears
    assert [file.name for file in path.parent.iterdir()] == ["pears.jsonl"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"weight": 1}\n\n{"weight": "2"}\n', r"pears:3: weight: Input should be a valid number \(buy pears\)"),
        ('{"weight": 1, "names": ["a", 2]}', r"pears:1: names.1: Input should be a valid string \(buy pears\)"),
        ('{"weight": -1}', r"pears:1: a pear weighs something \(buy pears\)"),
        ('{"weight": 1}\n{"weight"', r"pears:2: Invalid JSON: .*\(buy pears\)"),
        (None, r"pears: cannot be read: No such file or directory \(buy pears\)"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "pears"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=says):
        read_records(path, Pear, fix="buy pears")


def test_only_a_file_that_grew_line_by_line_may_end_in_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "pears"
    path.write_text('{"weight": 1}\n{"wei', encoding="utf-8")
    assert read_records(path, Pear, appended=True) == [Pear(1)]
    with pytest.raises(DataError, match="pears:2: "):
        read_records(path, Pear)


def test_one_value_is_read_as_it_is_typed(tmp_path: Path) -> None:
    path = tmp_path / "pears.json"
    path.write_text(json.dumps([asdict(Pear(1))]), encoding="utf-8")
    assert read_record(path, tuple[Pear, ...]) == (Pear(1),)
    with pytest.raises(DataError, match=r"pears.json: Input should be an object"):
        read_record(path, Pear)


TALK = Transcript(
    "d", "u", Persona("Ana is a nurse.", "brief"),
    (Message("user", "Hi."), Message("assistant", "Hello?"), Message("user", "Bye.")),
    (Exchange(Persona("a nurse", ""), False, "Hello!"),), (MessageNote(), MessageNote(True, ("too long",))),
)  # fmt: skip


def test_dialogues_are_read_as_they_are_written_now_and_as_they_were_at_first(tmp_path: Path) -> None:
    old = {
        "dialogue": "d", "user": "u", "persona": ["Ana is a nurse.", "brief"],
        "messages": [["user", "Hi."], ["assistant", "Hello?"], ["user", "Bye."]],
        "exchanges": [{"profile": ["a nurse", ""], "known": False, "reference": "Hello!"}],
        "said": [{"stock": False, "rejected": []}, {"stock": True, "rejected": ["too long"]}],
    }  # fmt: skip
    (tmp_path / "old.jsonl").write_text(json.dumps(old) + "\n", encoding="utf-8")
    write_records(tmp_path / "new.jsonl", [TALK])
    assert read_records(tmp_path / "old.jsonl", Transcript) == [TALK]
    assert read_records(tmp_path / "new.jsonl", Transcript) == [TALK]
    for wrong in (
        {"persona": ["one"]},
        {"messages": [["robot", "Hi."], ["assistant", "Hello?"]]},
        {"messages": [["user", "Hi."]]},
        {"user": 3},
    ):
        (tmp_path / "old.jsonl").write_text(json.dumps(old | wrong) + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"old.jsonl:1: .*run the same command without --render"):
            read_records(tmp_path / "old.jsonl", Transcript, AGAIN)
