"""What is written comes back: our own lines and TRL's, for any dialogue and any pair."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamdp.data import load_dialogues, load_pairs, pairs_of, write_dialogues, write_pairs, write_trl, write_trl_pairs
from pamdp.errors import DataError
from pamdp.types import Dialogue, Message, Persona, PreferencePair, Turn

SAID = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30).map(str.strip).filter(bool)
MAYBE = st.just("") | SAID
PERSONAS = st.builds(Persona, MAYBE, MAYBE)
BRANCH = st.sampled_from(["preferred", "rejected"])
LABELLED = st.builds(Turn, SAID, SAID, SAID, BRANCH, PERSONAS)
LAST = st.builds(Turn, SAID, st.none() | SAID, st.none() | SAID, BRANCH, PERSONAS)
ONE_REPLY = st.builds(Turn, SAID, SAID, st.none(), st.just("preferred"), PERSONAS)


@st.composite
def several_dialogues(draw: st.DrawFn, turns: st.SearchStrategy[tuple[Turn, ...]]) -> list[Dialogue]:
    ids = draw(st.lists(SAID, max_size=3, min_size=1, unique=True))
    return [Dialogue(name, draw(SAID), draw(PERSONAS), draw(turns)) for name in ids]


ANY_TURNS = st.tuples(st.lists(LABELLED | ONE_REPLY, max_size=3), LAST).map(lambda parts: (*parts[0], parts[1]))
LABELLED_TURNS = st.lists(LABELLED, min_size=1, max_size=4).map(tuple)
HISTORIES = st.lists(SAID, min_size=1, max_size=5).map(
    lambda texts: tuple(
        Message("assistant" if n % 2 else "user", text)
        for n, text in enumerate(texts[: len(texts) - 1 + len(texts) % 2])
    )
)


@st.composite
def several_pairs(draw: st.DrawFn) -> list[PreferencePair]:
    ids = draw(st.lists(SAID, max_size=3, min_size=1, unique=True))
    parts = (PERSONAS, HISTORIES, SAID, SAID, MAYBE, st.none() | SAID)
    return [PreferencePair(name, *(draw(part) for part in parts)) for name in ids]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lines")


@settings(max_examples=50)
@given(several_dialogues(ANY_TURNS))
def test_our_dialogues(folder: Path, dialogues: list[Dialogue]) -> None:
    assert write_dialogues(folder / "a.jsonl", dialogues) == len(dialogues)
    loaded = load_dialogues(folder / "a.jsonl")
    assert list(loaded) == dialogues and loaded.format == "jsonl" and not loaded.repaired


@settings(max_examples=50)
@given(several_pairs())
def test_our_pairs(folder: Path, pairs: list[PreferencePair]) -> None:
    assert write_pairs(folder / "a.jsonl", pairs) == len(pairs)
    loaded = load_pairs(folder / "a.jsonl")
    assert list(loaded) == pairs and loaded.format == "pairs" and not loaded.repaired


@settings(max_examples=50)
@given(several_dialogues(LABELLED_TURNS))
def test_dialogues_as_trl_lines(folder: Path, dialogues: list[Dialogue]) -> None:
    assert write_trl(folder / "a.jsonl", dialogues) == sum(len(dialogue.turns) for dialogue in dialogues)
    loaded = load_dialogues(folder / "a.jsonl")
    assert list(loaded) == dialogues and loaded.format == "trl"
    pairs = load_pairs(folder / "a.jsonl")
    assert list(pairs) == [pair for dialogue in dialogues for pair in pairs_of(dialogue)]


@settings(max_examples=50)
@given(several_pairs())
def test_pairs_as_trl_lines(folder: Path, pairs: list[PreferencePair]) -> None:
    assert write_trl_pairs(folder / "a.jsonl", pairs) == len(pairs)
    assert list(load_pairs(folder / "a.jsonl", format="trl")) == pairs


def test_trl_lines_are_what_trl_reads(tmp_path: Path) -> None:
    turns = (Turn("Hi", "Hello", "Yo", "rejected", Persona("", "curt")), Turn("Bye", "Bye", "Ciao"))
    write_trl(tmp_path / "a.jsonl", [Dialogue("d", "u", Persona("Ann"), turns)])
    first, second = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert first["prompt"] == [{"role": "user", "content": "Hi"}]
    assert first["chosen"] == [{"role": "assistant", "content": "Hello"}]
    assert first["rejected"] == [{"role": "assistant", "content": "Yo"}]
    assert (first["profile"], first["personality_t"], first["turn"], first["path"]) == ("Ann", "curt", 0, "rejected")
    assert [message["content"] for message in second["prompt"]] == ["Hi", "Yo", "Bye"]


def test_a_turn_without_two_replies_is_no_preference(tmp_path: Path) -> None:
    dialogue = Dialogue("d", "u", Persona(), (Turn("Hi", "Hello", "Yo"), Turn("Bye", "Bye")))
    with pytest.raises(DataError, match="dialogue d, turn 2 has no two replies"):
        write_trl(tmp_path / "a.jsonl", [dialogue])
    assert list(tmp_path.iterdir()) == [], "nothing half-written may stay"


def test_a_failed_writing_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("old")
    with pytest.raises(DataError, match=r"a\.jsonl:2: a text holds half a character"):
        write_dialogues(path, [Dialogue(name, "u", Persona(), (Turn("Hi"),)) for name in ("ok", "\ud800")])
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_who_is_reading_the_old_file_reads_it_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("old")
    with path.open() as reader:
        write_dialogues(path, [Dialogue("d", "u", Persona(), (Turn("Hi"),))])
        assert reader.read() == "old"
    assert path.read_bytes().endswith(b"}\n")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written: No such file or directory"):
        write_pairs(tmp_path / "missing" / "a.jsonl", [])


def test_outer_white_space_is_not_kept(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "a.jsonl", [Dialogue("d", "u", Persona(" x "), (Turn(" Hi\n", "\tHello "),))])
    (dialogue,) = load_dialogues(tmp_path / "a.jsonl")
    assert dialogue == Dialogue("d", "u", Persona("x"), (Turn("Hi", "Hello"),))
