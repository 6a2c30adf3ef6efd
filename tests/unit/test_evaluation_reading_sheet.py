"""The sheet for blind readers: what it shows and what it hides, its files, and the page in a browser."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from pamdp.errors import ConfigError, DataError
from pamdp.evaluation import reading_sheet
from pamdp.evaluation.reading_sheet import read_key, write_sheet
from pamdp.types import Dialogue
from tests.tools.reading import PAIRS, make_dialogues, make_replies, make_sheet

FILES = ("instructions.md", "sheet.html", "sheet.jsonl")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- what is shown


def test_a_state_by_hand(tmp_path: Path) -> None:
    dialogues = make_dialogues(users=1, turns=5)
    sheet = make_sheet(tmp_path, dialogues, make_replies(dialogues), messages=3)
    (line,) = [line for line in sheet.lines() if line["messages"][-1]["text"] == "Goat 0, day 4?"]
    assert line["persona"] == "They keep 0 goats. Dry."
    assert [m["text"] for m in line["messages"]] == ["Goat 0, day 3?", "Fine, day 3.", "Goat 0, day 4?"]
    assert [m["from"] for m in line["messages"]] == ["user", "assistant", "user"]
    assert line["earlier_messages"] == 6
    assert sorted(line["replies"].values()) == [f"words of kind {n} to talk-0 at 4" for n in range(3)]
    assert (list(line["replies"]), line["pairs"]) == (["A", "B", "C"], ["A-B", "A-C", "B-C"])


def test_the_key_says_who_wrote_what(tmp_path: Path) -> None:
    dialogues = make_dialogues(users=6, turns=2)
    replies = make_replies(dialogues)
    sheet = make_sheet(tmp_path, dialogues, replies)
    for line in sheet.lines():
        place = sheet.key.states[line["state"]]
        for method, letter in place.letters.items():
            assert line["replies"][letter] == replies[method][place.state[1], place.state[2]]
    assert read_key(sheet.key_file, sheet.folder) == sheet.key
    assert sorted(files_of(sheet.folder)) == sorted(FILES)


def test_states_are_spread_over_users(tmp_path: Path) -> None:
    dialogues = [*make_dialogues(users=5, turns=8), *make_dialogues(users=8, turns=1)[5:]]
    sheet = make_sheet(tmp_path, dialogues, make_replies(dialogues), states=13)
    users = [place.state[0] for place in sheet.key.states.values()]
    assert len(set(users[:8])) == 8 and set(Counter(users[8:]).values()) == {1}
    assert len({place.state for place in sheet.key.states.values()}) == 13


def test_states_without_a_reply_by_every_method_are_left_out(tmp_path: Path) -> None:
    dialogues = make_dialogues(users=3)
    replies = make_replies(dialogues)
    replies["BC"] = {key: text for key, text in replies["BC"].items() if key[0] != "talk-1"}
    sheet = make_sheet(tmp_path, dialogues, replies)
    assert {place.state[1] for place in sheet.key.states.values()} == {"talk-0", "talk-2"}


def test_equal_replies_are_shown_once(tmp_path: Path) -> None:
    dialogues = make_dialogues(users=2)
    replies = make_replies(dialogues)
    replies["BC"] = {("talk-0", 0): " One  goat.\n", ("talk-1", 0): "Same."}
    replies["PAMDP"] = {("talk-0", 0): "One goat.", ("talk-1", 0): "Same."}
    replies["Vanilla"] = {("talk-0", 0): "Two.", ("talk-1", 0): "Same."}
    sheet = make_sheet(tmp_path, dialogues, replies)
    shown = {sheet.key.states[line["state"]].state[1]: line for line in sheet.lines()}
    assert len(shown["talk-0"]["replies"]) == 2 and shown["talk-0"]["pairs"] == ["A-B"]
    assert shown["talk-1"]["replies"] == {"A": "Same."} and shown["talk-1"]["pairs"] == []
    letters = {place.state[1]: place.letters for place in sheet.key.states.values()}
    assert letters["talk-0"]["BC"] == letters["talk-0"]["PAMDP"] != letters["talk-0"]["Vanilla"]


# ---- what is hidden


def test_the_sheet_is_the_same_whoever_wrote_what(tmp_path: Path) -> None:
    dialogues = make_dialogues(users=5, turns=3)
    replies = {method: dict(own) for method, own in make_replies(dialogues).items()}
    for (d, t), text in replies["PAMDP"].items():
        if t == 1:  # the same words, set otherwise
            replies["BC"][d, t] = f"{text.replace(' ', '  ')}\n"
    one = make_sheet(tmp_path / "one", dialogues, replies, states=9, seed=4)
    for number, order in enumerate(permutations(replies)):
        wrote = dict(zip(replies, order, strict=True))  # who stands for whom
        turned = {method: replies[wrote[method]] for method in replies}
        two = make_sheet(tmp_path / str(number), dialogues, turned, list(reversed(PAIRS)), states=9, seed=4)
        assert files_of(one.folder) == files_of(two.folder)
        for name, place in two.key.states.items():
            assert place.letters == {m: one.key.states[name].letters[wrote[m]] for m in replies}


def test_pairs_that_are_not_compared_are_asked_too(tmp_path: Path) -> None:
    """Else the letter in all of the pairs would be the method that the others are compared with."""
    dialogues = make_dialogues()
    sheet = make_sheet(tmp_path, dialogues, make_replies(dialogues), PAIRS[:2])
    assert all(line["pairs"] == ["A-B", "A-C", "B-C"] for line in sheet.lines())


def test_the_sheet_names_no_method_and_no_place(tmp_path: Path) -> None:
    dialogues = make_dialogues()
    replies = make_replies([Dialogue("x", "y", d.persona, d.turns) for d in dialogues], ("Zeta-7", "Omicron"))
    shared = {
        m: {(d.id, 0): f"{text} {n}" for n, d in enumerate(dialogues)}
        for m, r in replies.items()
        for text in r.values()
    }
    sheet = make_sheet(tmp_path, dialogues, shared, [("Zeta-7", "Omicron")], seed=815)
    for name, content in files_of(sheet.folder).items():
        text = content.decode().lower()
        assert not [word for word in ("zeta", "omicron", "talk-", "user-", "815") if word in text], name


def test_every_method_has_every_letter_about_as_often(tmp_path: Path) -> None:
    dialogues = make_dialogues(users=150)
    sheet = make_sheet(tmp_path, dialogues, make_replies(dialogues))
    seen = Counter((method, letter) for place in sheet.key.states.values() for method, letter in place.letters.items())
    assert len(seen) == 9 and all(30 < count < 70 for count in seen.values())


def test_another_seed_draws_other_letters_and_names(tmp_path: Path) -> None:
    dialogues = make_dialogues(users=10)
    one, two = (make_sheet(tmp_path / str(n), dialogues, make_replies(dialogues), seed=n).key for n in range(2))
    letters = [{place.state: place.letters for place in key.states.values()} for key in (one, two)]
    assert letters[0].keys() == letters[1].keys() and letters[0] != letters[1]


# ---- files


@pytest.mark.parametrize("name", FILES)
def test_a_changed_sheet_is_refused(tmp_path: Path, name: str) -> None:
    dialogues = make_dialogues()
    sheet = make_sheet(tmp_path, dialogues, make_replies(dialogues))
    path = sheet.folder / name
    path.write_text(path.read_text("utf-8") + " ", encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(f"{path}: was changed after it was written")):
        read_key(sheet.key_file, sheet.folder)


def test_a_changed_key_is_refused(tmp_path: Path) -> None:
    dialogues = make_dialogues()
    sheet = make_sheet(tmp_path, dialogues, make_replies(dialogues))
    key = json.loads(sheet.key_file.read_text("utf-8"))
    first = next(iter(key["states"].values()))["letters"]
    first["BC"], first["PAMDP"] = first["PAMDP"], first["BC"]
    sheet.key_file.write_text(json.dumps(key), encoding="utf-8")
    with pytest.raises(DataError, match=r"key\.json: was changed after it was written"):
        read_key(sheet.key_file, sheet.folder)
    sheet.key_file.write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"key\.json: files: Field required .*the key as it was written"):
        read_key(sheet.key_file, sheet.folder)


def test_the_key_of_another_sheet_is_refused(tmp_path: Path) -> None:
    dialogues = make_dialogues()
    one, two = (make_sheet(tmp_path / str(n), dialogues, make_replies(dialogues), seed=n) for n in range(2))
    with pytest.raises(DataError, match="is of another sheet"):
        read_key(one.key_file, two.folder)


@pytest.mark.parametrize(
    ("pairs", "options", "words"),
    [
        ([("PAMDP", "Gamma")], {}, "no replies by 'Gamma'; there are: PAMDP, BC, Vanilla"),
        ([("PAMDP", "PAMDP")], {}, "2 to 26 methods"),
        ([], {}, "2 to 26 methods"),
        (PAIRS, {"messages": 0}, "1 or more messages"),
        (PAIRS, {"states": 5}, "5 states asked for, and 4 have a reply by every method"),
        (PAIRS, {"states": 0}, "states asked for"),
    ],
)
def test_what_cannot_be_a_sheet_is_refused(tmp_path: Path, pairs: Any, options: Any, words: str) -> None:
    dialogues = make_dialogues()
    with pytest.raises(ConfigError, match=words):
        make_sheet(tmp_path / "new", dialogues, make_replies(dialogues), pairs, **options)
    assert not (tmp_path / "new").exists()


def test_nothing_is_replaced_and_the_key_lies_apart(tmp_path: Path) -> None:
    dialogues = make_dialogues()
    replies = make_replies(dialogues)
    sheet = make_sheet(tmp_path, dialogues, replies)
    before = files_of(sheet.folder)
    for folder, key_file in ((sheet.folder, tmp_path / "k.json"), (tmp_path / "new", sheet.key_file)):
        with pytest.raises(ConfigError, match="is there already"):
            write_sheet(folder, key_file, dialogues, replies, PAIRS)
    with pytest.raises(ConfigError, match="must lie outside"):
        write_sheet(tmp_path / "new", tmp_path / "new" / "key.json", dialogues, replies, PAIRS)
    assert files_of(sheet.folder) == before and not (tmp_path / "new").exists()


def test_a_failure_leaves_no_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(reading_sheet, "write_json", fail)
    dialogues = make_dialogues()
    with pytest.raises(OSError, match="disk full"):
        make_sheet(tmp_path, dialogues, make_replies(dialogues))
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
