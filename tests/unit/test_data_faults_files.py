"""Faults of whole files: paths that hold nothing, unknown formats, arrays, tables, and any bytes at all."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamdp.data import load_dialogues, load_pairs, load_personas
from pamdp.errors import DataError, PamdpError
from pamdp.registry import LAYOUTS

OWN = json.dumps({"id": "good", "turns": [{"user": "Hi", "preferred": "Hello", "rejected": "Yo"}]})
TRL = json.dumps(
    {
        "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "Hello"}],
        "rejected": [{"role": "assistant", "content": "Yo"}],
    }
)
PAIR = json.dumps({"history": [{"role": "user", "content": "Hi"}], "preferred": "Hello", "rejected": "Yo"})


@pytest.mark.parametrize("load", [load_dialogues, load_pairs, load_personas], ids=lambda load: load.__name__)
def test_paths_that_hold_nothing(load: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.jsonl: there is no such file \(check the path\)"):
        load(tmp_path / "missing.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    with pytest.raises(DataError, match=r"the file is empty|there is no persona text in it"):
        load(empty)
    with pytest.raises(DataError, match=r"this is not a file|the folder holds no data"):
        (tmp_path / "folder").mkdir()
        load(tmp_path / "folder")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match="this is not a file"):
        load(tmp_path / "pipe.jsonl")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(OWN)

    def refuse(self: Path, mode: str = "r") -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"a\.jsonl: cannot be read: Permission denied"):
        load_dialogues(path)


def test_a_disk_that_fails_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(OWN)

    class Failing(io.BytesIO):
        def readline(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", lambda self, mode: Failing())
    with pytest.raises(DataError, match=r"a\.jsonl: cannot be read: Input/output error \(check path"):
        load_dialogues(path)


def test_a_path_that_no_system_takes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        load_dialogues(tmp_path / ("x" * 5_000))


def test_a_folder_with_two_layouts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(OWN)
    (tmp_path / "b.jsonl").write_text(TRL)
    with pytest.raises(DataError, match=r"b\.jsonl: a\.jsonl is in the layout 'jsonl', this one in 'trl'"):
        load_dialogues(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\nworld\n", r"a\.json:1: no known layout: not valid JSON"),
        ('{"a": 1, "b": 2}\n', r"no known layout: its records have the fields a, b \(name one if you know it: .*trl"),
        ("1\n2\n", "no known layout: there is no JSON object in it"),
        ('{\n  "id": "x",\n  "turns": []\n}\n', r"not valid JSON: .* \(write one JSON object on each line"),
    ],
)  # fmt: skip
def test_content_that_shows_no_layout(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_dialogues(path)


def test_the_wrong_door_names_the_right_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(PAIR)
    with pytest.raises(DataError, match=r"the layout 'pairs', which holds no dialogues \(load_pairs reads it\)"):
        load_dialogues(path)
    path.write_text('"Ann bakes."\n"Bo sails."\n')
    with pytest.raises(DataError, match=r"'personas', which holds no preference pairs \(load_personas reads it\)"):
        load_pairs(path)


ITEM = {"preference": "p", "persona": "q", "conversation": {"0": {"user": "Hi", "assistant": "Hello"}}}


@pytest.mark.parametrize(
    ("text", "line", "message", "left"),
    [
        (json.dumps([ITEM, ITEM], indent=1)[:-40], 12, "not valid JSON: .*the rest of the file is left out", 1),
        (json.dumps([ITEM])[:-1], 1, "the JSON array has no end", 1),
        (f"[\n{json.dumps(ITEM)}\n{json.dumps(ITEM)}]", 2, "no comma after this item; the rest", 1),
        (json.dumps([ITEM]) + "[]", 1, "something after the end of the JSON array", 1),
        (json.dumps([ITEM, 3]), 1, "the record is a number where a JSON object belongs", 1),
        (json.dumps([ITEM, ITEM | {"conversation": {}}]), 1, "turns that are not numbered 0, 1, 2", 1),
        (json.dumps([ITEM, ITEM | {"conversation": {"0": 1, "2": 1}}]), 1, "turns that are not numbered 0, 1, 2", 1),
        (
            json.dumps([ITEM, ITEM | {"conversation": {"0": {"user": "x"}}}]),
            1,
            "`conversation`, `0`, `assistant` is missing",
            1,
        ),
        (json.dumps([ITEM, ITEM | {"persona": ""}]), 1, "`persona` is empty", 1),
        (json.dumps([ITEM, ITEM | {"persona": {}}]), 1, "`persona` is an object where a text belongs", 1),
    ],
)
def test_a_bad_array(text: str, line: int, message: str, left: int, tmp_path: Path) -> None:
    path = tmp_path / "topic.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load_dialogues(path)
    assert caught.value.line == line and caught.value.path == path
    loaded = load_dialogues(path, skip_bad=True)
    assert len(loaded) == left and len(loaded.skipped) == 1


def test_an_array_file_of_a_folder_that_cannot_be_decoded_is_one_skip(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([ITEM]))
    (tmp_path / "b.json").write_bytes(b'[\n"\xff"]')
    with pytest.raises(DataError, match=r"b\.json:2: a byte of this line is not UTF-8"):
        load_dialogues(tmp_path, format="prefeval")
    loaded = load_dialogues(tmp_path, format="prefeval", skip_bad=True)
    assert len(loaded) == 1 and len(loaded.skipped) == 1


HEADER = "user 1 personas,user 2 personas,Best Generated Conversation\n"
ROW = '"I knit.","I ski.","User 1: Hi\nUser 2: Hello"\n'


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        (ROW + "one,two\n", 4, "the row has fewer than three cells"),
        (ROW + ',b,"User 1: Hi"\n', 4, "`user 1 personas` is empty"),
        (ROW + 'a,b,"Hi there"\n', 4, "`conversation` has no line that starts with `User 1:`"),
        (ROW + 'a,b,"User 2: Hi"\n', 4, "`conversation` has nothing that User 1 says"),
        (ROW + 'a,b,"User 1:"\n', 4, "`conversation` has an empty line of User 1"),
        (ROW + 'a,b,"User 1: Hi\nUser 2: \x00"\n', 4, "`conversation` holds a NUL byte"),
        (ROW + 'a,b,"User 1: Hi', 4, "not valid CSV: unexpected end of data; the rest of the file is left out"),
        (ROW + 'a,b,"User 1: ' + "x" * 200_000 + '"\n', 4, "not valid CSV: field larger than field limit"),
        (ROW + "a,b,User 1: caf\udce9\n", 4, "`conversation` holds bytes that are not UTF-8"),
    ],
)
def test_a_bad_table(rows: str, line: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes((HEADER + rows).encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message) as caught:
        load_dialogues(path)
    assert caught.value.line == line
    loaded = load_dialogues(path, skip_bad=True)
    assert len(loaded) == 1 and len(loaded.skipped) == 1


@settings(max_examples=60)
@given(st.binary(max_size=300), st.sampled_from(["auto", *LAYOUTS]))
def test_any_bytes_give_a_plain_error_or_data(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, format: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bytes"
    path.write_bytes(raw)
    for load in (load_dialogues, load_pairs):
        for skip_bad in (False, True):
            try:
                load(path, format=format, skip_bad=skip_bad)
            except PamdpError as error:
                assert "\n" not in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["turns", "conversations", "user", "preferred", "rejected", "prompt", "chosen", "history",
                         "role", "content", "assistant", "id", "0", "conversation", "preference"]), inner, max_size=4
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(JSON, min_size=1, max_size=4), st.sampled_from(sorted({*LAYOUTS} - {"spc", "personas"})))
def test_any_json_is_counted_to_the_last_record(
    tmp_path_factory: pytest.TempPathFactory, records: list[object], format: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    array = format.startswith("prefeval")
    path.write_text(json.dumps(records) if array else "\n".join(map(json.dumps, records)))
    load = load_dialogues if "dialogues" in LAYOUTS[format].makes else load_pairs
    try:
        loaded = load(path, format=format, skip_bad=True)
    except DataError as error:
        assert "\n" not in str(error)
        assert "is left; bad records: " in str(error) or "there is no" in str(error)
    else:
        assert len(loaded.skipped) < len(records)
