"""Every fault that a file can have: an error with its line, or a counted skip; never a traceback, never silence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamdp.data import load_dialogues, load_pairs, load_personas
from pamdp.data import reading as reading_module
from pamdp.data.fields import MAX_TEXT
from pamdp.data.formats import DIALOGUES, PAIRS
from pamdp.errors import DataError, PamdpError

GOOD = json.dumps({"id": "good", "turns": [{"user": "Hi", "preferred": "Hello", "rejected": "Yo"}]})


def own(**changes: object) -> str:
    return json.dumps({"id": "bad", "turns": [{"user": "Hi", "preferred": "Hello", "rejected": "Yo"}]} | changes)


def turns(*items: dict[str, object]) -> str:
    return own(turns=list(items))


def aloe(**replies: object) -> str:
    turn = {"user": "Hi", "assistant": {"preferred": "Hello", "rejected": "Yo"} | replies}
    return json.dumps({"profile": "p", "conversations": [turn]})


def trl(**changes: object) -> str:
    message = {"role": "user", "content": "Hi"}
    reply = [{"role": "assistant", "content": "Hello"}]
    return json.dumps({"prompt": [message], "chosen": reply, "rejected": reply} | changes)


def roles(*names: str) -> str:
    return trl(prompt=[{"role": name, "content": "x"} for name in names])


def pair(**changes: object) -> str:
    record = {"history": [{"role": "user", "content": "Hi"}], "preferred": "Hello", "rejected": "Yo"}
    return json.dumps(record | changes)


BAD_LINES = {
    "cut off": ("jsonl", GOOD[:-9], "not valid JSON: .*cut off"),
    "not JSON": ("jsonl", "hello there", "not valid JSON: Expecting value at column 1"),
    "NaN": ("jsonl", '{"id": NaN, "turns": []}', "NaN is not a JSON number"),
    "infinity": ("jsonl", '{"id": "x", "turns": [-Infinity]}', "-Infinity is not a JSON number"),
    "deep": ("jsonl", '{"turns": ' + "[" * 100_000, "nested too deeply"),
    "huge number": ("jsonl", '{"turns": ' + "9" * 5_000 + "}", "not valid JSON: "),
    "key twice": ("jsonl", '{"id": "a", "id": "b", "turns": []}', "key 'id' occurs twice"),
    "a list": ("jsonl", "[1, 2]", "a list where a JSON object belongs"),
    "a number": ("jsonl", "3.5", "a number where a JSON object belongs"),
    "a text": ("jsonl", '"hello"', "a text where a JSON object belongs"),
    "null": ("jsonl", "null", "nothing where a JSON object belongs"),
    "true": ("jsonl", "true", "true or false where a JSON object belongs"),
    "no turns": ("jsonl", own(turns=None), "`turns` is nothing where a list belongs"),
    "0 turns": ("jsonl", own(turns=[]), "`turns` is an empty list"),
    "turn is a text": ("jsonl", own(turns=["Hi"]), "turn 1: a text where a JSON object belongs"),
    "no user": ("jsonl", turns({"preferred": "x"}), "turn 1: `user` is missing"),
    "empty user": ("jsonl", turns({"user": " \n"}), "turn 1: `user` is empty"),
    "user a number": ("jsonl", turns({"user": 7}), "turn 1: `user` is a number where a text belongs"),
    "empty reply": ("jsonl", turns({"user": "x", "preferred": ""}), "turn 1: `preferred` is empty"),
    "rejected a list": ("jsonl", turns({"user": "x", "rejected": ["y"]}), "`rejected` is a list where a text belongs"),
    "1 MB turn": ("jsonl", turns({"user": "x" * 2**20}), r"`user` has 1,048,576 characters; the limit is 100,000"),
    "NUL": ("jsonl", turns({"user": "a\0b"}), "turn 1: `user` holds a NUL byte"),
    "half a character": ("jsonl", '{"turns": [{"user": "\\ud83d"}]}', "turn 1: `user` holds .*half a character"),
    "odd branch": ("jsonl", turns({"user": "x", "chosen": "both"}), "`chosen` is 'both' .*preferred, rejected"),
    "inferred a text": ("jsonl", turns({"user": "x", "inferred": "y"}), "`inferred`: a text where a JSON object"),
    "id a list": ("jsonl", own(id=["x"]), "`id` is a list where a text belongs"),
    "profile a list": ("jsonl", own(profile=["x"]), "`profile` is a list where a text belongs"),
    "no reply on the path": (
        "jsonl",
        turns({"user": "x", "preferred": "y", "chosen": "rejected"}, {"user": "z"}),
        "turn 1: no rejected reply, which the dialogue goes on with",
    ),
    "aloe without replies": ("aloe", '{"conversations": [{"user": "x"}]}', "turn 1: `assistant`: nothing where"),
    "aloe empty list": ("aloe", aloe(rejected=[]), "turn 1: `assistant`: `rejected` is a list without a text"),
    "aloe blank list": ("aloe", aloe(rejected=["", " "]), "`rejected` is a list without a text"),
    "aloe list of numbers": ("aloe", aloe(rejected=[3]), "`rejected` is a list that holds something other than texts"),
    "aloe two persons": ("aloe", '{"profile": "\\"a\\"\\"b\\"", "conversations": [{}]}', "two texts, so two persons"),
    "trl no prompt": ("trl", trl(prompt=None), "`prompt` is nothing where a list belongs"),
    "trl prompt a text": ("trl", trl(prompt="Hi"), "`prompt` is a text where a list belongs"),
    "assistant first": ("trl", roles("assistant", "user"), "message 1: `role` is 'assistant' where 'user' belongs"),
    "two users": ("trl", roles("user", "user"), "message 2: `role` is 'user' where 'assistant' belongs"),
    "unknown role": ("trl", roles("user", "tool", "user"), "message 2: `role` is 'tool' where 'assistant' belongs"),
    "late system": ("trl", roles("user", "system", "user"), "message 2: `role` is 'system' where 'assistant' belongs"),
    "ends with assistant": ("trl", roles("user", "assistant"), "`prompt` ends with the assistant"),
    "rejected a text": ("trl", trl(rejected="no"), "`rejected` is a text where a list belongs"),
    "two replies": ("trl", trl(chosen=[{"role": "assistant", "content": "x"}] * 2), "`chosen` is not one assistant"),
    "reply by user": ("trl", trl(chosen=[{"role": "user", "content": "x"}]), "`chosen` is not one assistant message"),
    "empty content": ("trl", trl(prompt=[{"role": "user", "content": ""}]), "`prompt` message 1: `content` is empty"),
    "pair without history": ("pairs", pair(history=None), "`history` is nothing where a list belongs"),
    "pair without preferred": ("pairs", pair(preferred=None), "`preferred` is missing"),
    "pair rejected a list": ("pairs", pair(rejected=["x"]), "`rejected` is a list where a text belongs"),
    "pair twin a number": ("pairs", pair(twin=3), "`twin` is a number where a text belongs"),
}  # fmt: skip


def good(format: str, number: int) -> str:
    return {"jsonl": own(id=f"g{number}"), "aloe": aloe(), "trl": trl(), "pairs": pair()}[format]


@pytest.mark.parametrize("fault", BAD_LINES)
def test_a_bad_line_is_an_error_or_a_counted_skip(fault: str, tmp_path: Path) -> None:
    format, line, message = BAD_LINES[fault]
    load = load_dialogues if format in DIALOGUES else load_pairs
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join([good(format, 1), "", line, good(format, 2)]), encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        load(path, format=format)
    text = str(caught.value)
    assert text.startswith(f"{path}:3: ") and "\n" not in text and len(text) < 400
    assert caught.value.fix, "the message must say what to do"
    loaded = load(path, format=format, skip_bad=True)
    assert len(loaded) == 2 and len(loaded.skipped) == 1
    assert str(loaded.skipped[0]) == text
    assert load(path, skip_bad=True).format == format, "one bad line must not hide the format"


def test_the_limit_is_the_last_length_that_passes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(turns({"user": "x" * MAX_TEXT}))
    assert len(load_dialogues(path).dialogues[0].turns[0].user) == MAX_TEXT
    path.write_text(turns({"user": "x" * (MAX_TEXT + 1)}))
    with pytest.raises(DataError, match="100,001"):
        load_dialogues(path)


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD.encode() + b'\n{"turns": [{"user": "caf\xe9"}]}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: byte 25 of the line is not UTF-8 \(save the file as UTF-8\)"):
        load_dialogues(path)
    loaded = load_dialogues(path, skip_bad=True)
    assert len(loaded) == 1 and len(loaded.skipped) == 1


def test_utf16_is_no_known_format(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(DataError, match=r"a\.jsonl:1: no known format: byte 1 of the line is not UTF-8"):
        load_dialogues(path)


def test_several_values_on_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{own(id='a')}{own(id='b')} {own(id='c')}\n{own(id='d')}")
    with pytest.raises(DataError, match=r"a\.jsonl:1: more than one JSON value on the line \(put each on a line"):
        load_dialogues(path)
    loaded = load_dialogues(path, skip_bad=True)
    assert [dialogue.id for dialogue in loaded] == ["a", "b", "c", "d"]
    assert loaded.repaired == {"more than one JSON value on the line": 1} and loaded.skipped == ()


def test_rubbish_after_a_value(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{own(id='a')} oops\n{own(id='b')}")
    with pytest.raises(DataError, match=":1: more than one JSON value"):
        load_dialogues(path)
    loaded = load_dialogues(path, skip_bad=True)
    assert [dialogue.id for dialogue in loaded] == ["a", "b"]
    assert [error.line for error in loaded.skipped] == [1]


def test_duplicate_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{GOOD}\n{GOOD}\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2: the id 'good' occurs twice \(give every record"):
        load_dialogues(path)
    loaded = load_dialogues(path, skip_bad=True)
    assert len(loaded) == 1 and [error.line for error in loaded.skipped] == [2]


def test_duplicate_ids_across_the_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(DataError, match=r"b\.jsonl:1: the id 'good' occurs twice"):
        load_dialogues(tmp_path)


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
    path.write_text(GOOD)

    def refuse(self: Path, mode: str = "r") -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"a\.jsonl: cannot be read: Permission denied"):
        load_dialogues(path)


def test_a_folder_with_two_formats(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(own())
    (tmp_path / "b.jsonl").write_text(trl())
    with pytest.raises(DataError, match=r"b\.jsonl: a\.jsonl is in the format 'jsonl', this one in 'trl'"):
        load_dialogues(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\nworld\n", r"a\.json:1: no known format: not valid JSON"),
        ('{"a": 1, "b": 2}\n', r"no known format has the fields a, b \(the formats are: aloe, .*trl"),
        ("1\n2\n", "no known format: there is no JSON object in it"),
        ('{\n  "id": "x",\n  "turns": []\n}\n', r"not valid JSON: .* \(write one JSON object on each line"),
    ],
)  # fmt: skip
def test_content_that_shows_no_format(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_dialogues(path)


def test_the_wrong_door_names_the_right_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(pair())
    with pytest.raises(DataError, match=r"the format 'pairs', which holds no dialogues \(load_pairs reads it\)"):
        load_dialogues(path)
    path.write_text('"Ann bakes."\n"Bo sails."\n')
    with pytest.raises(DataError, match=r"'personas', which holds no preference pairs \(load_personas reads it\)"):
        load_pairs(path)


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "MAX_LINE", 200)
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([own(id="a"), "x" * 5_000, own(id="b")]))
    with pytest.raises(DataError, match=r"a\.jsonl:2: the line is longer than 200 bytes"):
        load_dialogues(path)
    loaded = load_dialogues(path, skip_bad=True)
    assert [dialogue.id for dialogue in loaded] == ["a", "b"] and len(loaded.skipped) == 1


ITEM = {"preference": "p", "persona": "q", "conversation": {"0": {"user": "Hi", "assistant": "Hello"}}}


@pytest.mark.parametrize(
    ("text", "line", "message", "left"),
    [
        (json.dumps([ITEM, ITEM], indent=1)[:-40], 12, "not valid JSON: .*the rest of the file is left out", 1),
        (json.dumps([ITEM])[:-1], 1, "the JSON array has no end", 1),
        (f"[\n{json.dumps(ITEM)}\n{json.dumps(ITEM)}]", 2, "no comma after this item; the rest", 1),
        (json.dumps([ITEM]) + "[]", 1, "something after the end of the JSON array", 1),
        (json.dumps([ITEM, 3]), 1, "a number where a JSON object belongs", 1),
        (json.dumps([ITEM, ITEM | {"conversation": {}}]), 1, "the turns are not numbered 0, 1, 2", 1),
        (json.dumps([ITEM, ITEM | {"conversation": {"0": 1, "2": 1}}]), 1, "the turns are not numbered 0, 1, 2", 1),
        (
            json.dumps([ITEM, ITEM | {"conversation": {"0": {"user": "x"}}}]),
            1,
            "`conversation`: `0`: `assistant` is missing",
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
        (ROW + 'a,b,"User 2: Hi"\n', 4, "User 1 says nothing"),
        (ROW + 'a,b,"User 1:"\n', 4, "`what User 1 says` is empty"),
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


@given(st.binary(max_size=300), st.sampled_from(["auto", *DIALOGUES, *PAIRS]))
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


@given(st.lists(JSON, min_size=1, max_size=4), st.sampled_from(sorted({*DIALOGUES, *PAIRS} - {"spc"})))
def test_any_json_is_counted_to_the_last_record(
    tmp_path_factory: pytest.TempPathFactory, records: list[object], format: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    array = format.startswith("prefeval")
    path.write_text(json.dumps(records) if array else "\n".join(map(json.dumps, records)))
    load = load_dialogues if format in DIALOGUES else load_pairs
    try:
        loaded = load(path, format=format, skip_bad=True)
    except DataError as error:
        assert "is left; bad records: " in str(error) or "there is no" in str(error)
    else:
        assert len(loaded.skipped) < len(records)
