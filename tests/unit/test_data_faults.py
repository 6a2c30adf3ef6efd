"""Every fault that a line can have: an error with its line, or a counted skip; never a traceback, never silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pamdp.data import load_dialogues, load_pairs
from pamdp.data import reading as reading_module
from pamdp.data.fields import MAX_TEXT
from pamdp.errors import DataError
from pamdp.registry import LAYOUTS

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
    "a list": ("jsonl", "[1, 2]", "the record is a list where a JSON object belongs"),
    "a number": ("jsonl", "3.5", "the record is a number where a JSON object belongs"),
    "a text": ("jsonl", '"hello"', "the record is a text where a JSON object belongs"),
    "null": ("jsonl", "null", "the record is nothing where a JSON object belongs"),
    "true": ("jsonl", "true", "the record is true or false where a JSON object belongs"),
    "no turns": ("jsonl", own(turns=None), "`turns` is missing"),
    "0 turns": ("jsonl", own(turns=[]), "`turns` is a list of 0 where 1 or more belong"),
    "turn is a text": ("jsonl", own(turns=["Hi"]), "`turns`, item 1 is a text where a JSON object belongs"),
    "no user": ("jsonl", turns({"preferred": "x"}), "`turns`, item 1, `user` is missing"),
    "empty user": ("jsonl", turns({"user": " \n"}), "`turns`, item 1, `user` is empty"),
    "user a number": ("jsonl", turns({"user": 7}), "`turns`, item 1, `user` is a number where a text belongs"),
    "empty reply": ("jsonl", turns({"user": "x", "preferred": ""}), "`turns`, item 1, `preferred` is empty"),
    "rejected a list": ("jsonl", turns({"user": "x", "rejected": ["y"]}), "`rejected` is a list where a text belongs"),
    "1 MB turn": ("jsonl", turns({"user": "x" * 2**20}), "`user` has 1,048,576 characters; the limit is 100,000"),
    "NUL": ("jsonl", turns({"user": "a\0b"}), "`turns`, item 1, `user` holds a NUL byte"),
    "half a character": ("jsonl", '{"turns": [{"user": "\\ud83d"}]}', "item 1, `user` holds .*half a character"),
    "odd branch": ("jsonl", turns({"user": "x", "chosen": "both"}), "`chosen` is 'both' .*'preferred' or 'rejected'"),
    "inferred a text": ("jsonl", turns({"user": "x", "inferred": "y"}), "`inferred` is a text where a JSON object"),
    "id a list": ("jsonl", own(id=["x"]), "`id` is a list where a text belongs"),
    "profile a list": ("jsonl", own(profile=["x"]), "`profile` is a list where a text belongs"),
    "no reply on the path": (
        "jsonl",
        turns({"user": "x", "preferred": "y", "chosen": "rejected"}, {"user": "z"}),
        "turn 1: no rejected reply, which the dialogue goes on with",
    ),
    "aloe without replies": ("aloe", '{"conversations": [{"user": "x"}]}', "item 1, `assistant` is missing"),
    "aloe empty list": ("aloe", aloe(rejected=[]), "item 1, `assistant`, `rejected` is a list without a text"),
    "aloe blank list": ("aloe", aloe(rejected=["", " "]), "`rejected` is a list without a text"),
    "aloe list of numbers": ("aloe", aloe(rejected=[3]), "`rejected` is a list that holds something other than texts"),
    "aloe two persons": ("aloe", '{"profile": "\\"a\\"\\"b\\"", "conversations": [{}]}', "two texts, so two persons"),
    "trl no prompt": ("trl", trl(prompt=None), "`prompt` is missing"),
    "trl prompt a text": ("trl", trl(prompt="Hi"), "`prompt` is a text where a list belongs"),
    "assistant first": ("trl", roles("assistant", "user"), "`prompt` has the role 'assistant' at item 1, where 'user'"),
    "two users": ("trl", roles("user", "user"), "`prompt` has the role 'user' at item 2, where 'assistant'"),
    "unknown role": ("trl", roles("user", "tool", "user"), "`prompt` has the role 'tool' at item 2, where 'assistant'"),
    "late system": ("trl", roles("user", "system", "user"), "the role 'system' at item 2, where 'assistant'"),
    "ends with assistant": ("trl", roles("user", "assistant"), "`prompt` ends with the assistant"),
    "rejected a text": ("trl", trl(rejected="no"), "`rejected` is a text where a list belongs"),
    "two replies": ("trl", trl(chosen=[{"role": "assistant", "content": "x"}] * 2), "`chosen` is not one assistant"),
    "reply by user": ("trl", trl(chosen=[{"role": "user", "content": "x"}]), "`chosen` is not one assistant message"),
    "empty content": ("trl", trl(prompt=[{"role": "user", "content": ""}]), "`prompt`, item 1, `content` is empty"),
    "pair without history": ("pairs", pair(history=None), "`history` is missing"),
    "pair without preferred": ("pairs", pair(preferred=None), "`preferred` is missing"),
    "pair rejected a list": ("pairs", pair(rejected=["x"]), "`rejected` is a list where a text belongs"),
    "pair twin a number": ("pairs", pair(twin=3), "`twin` is a number where a text belongs"),
}  # fmt: skip


def good(format: str, number: int) -> str:
    return {"jsonl": own(id=f"g{number}"), "aloe": aloe(), "trl": trl(), "pairs": pair()}[format]


@pytest.mark.parametrize("fault", BAD_LINES)
def test_a_bad_line_is_an_error_or_a_counted_skip(fault: str, tmp_path: Path) -> None:
    format, line, message = BAD_LINES[fault]
    load = load_dialogues if "dialogues" in LAYOUTS[format].makes else load_pairs
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


def test_utf16_is_no_known_layout(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(DataError, match=r"a\.jsonl:1: no known layout: byte 1 of the line is not UTF-8"):
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


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "MAX_LINE", 200)
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([own(id="a"), "x" * 5_000, own(id="b")]))
    with pytest.raises(DataError, match=r"a\.jsonl:2: the line is longer than 200 bytes"):
        load_dialogues(path)
    loaded = load_dialogues(path, skip_bad=True)
    assert [dialogue.id for dialogue in loaded] == ["a", "b"] and len(loaded.skipped) == 1
