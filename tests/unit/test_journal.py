"""The journal of a round: whole turns come back equal, torn ones not at all, and none stands there twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from pamdp.errors import DataError, RunError
from pamdp.journal import Journal, PlayedTurn
from pamdp.types import Message, Outcome, Persona, TimeStep

FIRST = TimeStep("d1", 0, (Message("user", "hello {you} 🙂\nthere"),), Persona("a nurse", "brief"))
NEXT = TimeStep(
    "d1", 1, (*FIRST.history, Message("assistant", "hi"), Message("user", "so?")), Persona(), False, True, ("no words",)
)
TURN = PlayedTurn(
    "d1", 0, ("hi", "ho"), ([0.1, -1e-30], [1 / 3, 2.0]), [0.0, 1.5], (Outcome(1.0, NEXT), Outcome(None, NEXT))
)
LAST = PlayedTurn("d1", 1, ("bye",), (None,), None, (Outcome(-0.25, NEXT, truncated=True),))
ENDED = PlayedTurn("d2", 0, ("bye",), (None,), None, (Outcome(0.5, None),))


def _write(path: Path) -> None:
    with Journal(path) as journal:
        journal.open(FIRST)
        for played in (TURN, LAST, ENDED):
            journal.add(played)


def test_what_was_stored_comes_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "journal" / "1.jsonl"
    _write(path)
    with Journal(path) as journal:
        assert journal.openings == {"d1": FIRST}
        assert journal.turns == {("d1", 0): TURN, ("d1", 1): LAST, ("d2", 0): ENDED}
    journal.delete()
    assert not path.exists()


def test_a_journal_cut_anywhere_holds_its_whole_turns_and_takes_more(tmp_path: Path) -> None:
    path = tmp_path / "1.jsonl"
    _write(path)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:cut])
        stored = sum(end <= cut for end in ends)
        with Journal(path) as journal:
            assert len(journal.openings) + len(journal.turns) == stored
            if ("d2", 0) not in journal.turns:
                journal.add(ENDED)
        with Journal(path) as journal:
            assert journal.turns["d2", 0] == ENDED


def test_no_turn_counts_twice(tmp_path: Path) -> None:
    path = tmp_path / "1.jsonl"
    _write(path)
    with Journal(path) as journal, pytest.raises(RunError, match="turn 0 of dialogue d1 stands there twice"):
        journal.add(TURN)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(RunError, match="stands there twice"), Journal(path):
        pass


@pytest.mark.parametrize("line", ['{"key": "d"}', '{"key": "d", "opening": 3}', '{"t": 1}'])
def test_a_file_that_is_no_journal_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "1.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=r"1\.jsonl:1: .*delete this file to play its round anew"), Journal(path):
        pass
