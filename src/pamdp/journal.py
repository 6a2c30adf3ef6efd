"""What was played of an unfinished round, turn by turn, so that a kill costs the turns in flight and nothing else.

Owns an append-only file of whole turns, each synced before anything is built on it. Knows nothing of who plays. A round
that is taken up again gets its stored turns from here: replies and outcomes are neither written nor asked for again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

from pamdp.errors import DataError, RunError
from pamdp.files import json_line
from pamdp.stored import read_records, write_records
from pamdp.types import Outcome, TimeStep


@dataclass(frozen=True, slots=True)
class PlayedTurn:
    """One turn of one dialogue and what came of it.

    Attributes:
      key, t: dialogue and turn.
      replies: the alternatives; the first one was said.
      actions, mean: the latent actions and the mean of their distribution, [d_a] each; None without a planner.
      outcomes: one for each alternative.
    """

    key: str
    t: int
    replies: tuple[str, ...]
    actions: tuple[list[float] | None, ...]
    mean: list[float] | None
    outcomes: tuple[Outcome, ...]


class Turns(Protocol):
    """Turns that were played before, to which new ones are added as they end."""

    openings: dict[str, TimeStep]
    turns: dict[tuple[str, int], PlayedTurn]

    def open(self, moment: TimeStep) -> None:
        """Store the first moment of a dialogue."""

    def add(self, played: PlayedTurn) -> None:
        """Store a turn."""


class Journal:
    """The turns of one round: `with Journal(path) as journal: ...`; what is there already is read first.

    Args:
      path: the file.
      beside: files of other processes that play the same round; they are read only.
      before: called before anything is stored, such as to store first what it cost: what stands in the journal is not
        asked for again, so nothing would count it later.
    """

    def __init__(self, path: Path, before: Callable[[], None] | None = None, beside: Sequence[Path] = ()) -> None:
        self.path, self.before, self.beside = path, before, beside
        self.openings: dict[str, TimeStep] = {}
        self.turns: dict[tuple[str, int], PlayedTurn] = {}
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Read what is stored and open the file for more; DataError: no journal, RunError: a turn is there twice."""
        fix = "delete this file to play its round anew"
        own = read_records(self.path, _Record, fix, appended=True) if self.path.exists() else []
        for records in (own, *(read_records(path, _Record, fix, appended=True) for path in self.beside)):
            for record in records:
                self._take(record)
        # Without its torn last line: what is appended must start on a line of its own.
        write_records(self.path, own)
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def open(self, moment: TimeStep) -> None:
        """Store the first moment of a dialogue."""
        self._append(_Record(opening=moment))

    def add(self, played: PlayedTurn) -> None:
        """Store a turn; a RunError if it is stored already: a turn never counts twice."""
        self._append(_Record(turn=played))

    def delete(self) -> None:
        """The round is whole and stored elsewhere."""
        self.path.unlink(missing_ok=True)

    def _append(self, record: _Record) -> None:
        assert self._file is not None
        self._require_new(record)
        if self.before is not None:
            self.before()
        self._file.write(json_line(asdict(record)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._take(record)

    def _require_new(self, record: _Record) -> None:
        if (played := record.turn) is not None and (played.key, played.t) in self.turns:
            raise RunError(f"{self.path}: turn {played.t} of dialogue {played.key} stands there twice")

    def _take(self, record: _Record) -> None:
        self._require_new(record)
        if record.opening is not None:
            self.openings[record.opening.key] = record.opening
        if record.turn is not None:
            self.turns[record.turn.key, record.turn.t] = record.turn


@dataclass(frozen=True, slots=True)
class _Record:
    """One line: the first moment of a dialogue, or a turn."""

    opening: TimeStep | None = None
    turn: PlayedTurn | None = None

    def __post_init__(self) -> None:
        if (self.opening is None) == (self.turn is None):
            raise DataError("a line holds an opening or a turn")
