"""What blind readers said of a sheet, and their verdicts as judgements, beside those of the model judges.

Owns the files of verdicts, what is wrong with them, and what a reading is once the key is applied. Knows nothing of how
readings are summed up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pamdp.errors import DataError
from pamdp.evaluation.reading_sheet import Key, SheetState, read_key
from pamdp.evaluation.records import Judgement, State, grouped
from pamdp.judges.base import Outcome, Verdict
from pamdp.stored import read_records

Kind = Literal["person", "model"]
Grades = dict[str, dict[Literal["form", "sense"], Annotated[int, Field(ge=0, le=2)]]]
"""Letter -> question -> grade."""
POOLED = "readers"
"""The judge that all readers of a state are together."""


class _Line(BaseModel):
    """A line of a file of verdicts."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    state: str
    reader: Annotated[str, Field(min_length=1)]
    kind: Kind
    grades: Grades = {}
    prefer: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Reading:
    """One reader on one state of the sheet; what was not answered is absent."""

    reader: str
    place: SheetState
    grades: Grades
    prefer: dict[str, str]  # pair of letters, `A-B` -> one of them, or `tie`

    def graded(self, question: str) -> dict[str, int]:
        """Letter -> grade."""
        return {letter: grade for letter, own in self.grades.items() for q, grade in own.items() if q == question}

    def outcome(self, method: str, baseline: str) -> Outcome | None:
        """The verdict, from the method's side; replies of the same words are a tie for whoever read the state."""
        own, other = self.place.letters[method], self.place.letters[baseline]
        if own == other:
            return "tie" if self.prefer or self.grades else None
        said = self.prefer.get("-".join(sorted((own, other))))
        return None if said is None else "tie" if said == "tie" else "win" if said == own else "loss"


@dataclass(frozen=True, slots=True)
class Readings:
    """All that was read of one sheet, in the order of states: the order of sheet and letters has no part in it."""

    pairs: tuple[tuple[str, str], ...]
    kinds: dict[str, Kind]
    readings: tuple[Reading, ...]

    @property
    def judges(self) -> dict[str, dict[State, list[Reading]]]:
        """Readings of each state by the name of a judge: each reader, and all of them together if there are several."""
        said = grouped(self.readings, lambda r: f"reader {r.reader}")
        if len(said) > 1:
            said[POOLED] = [*self.readings]
        return {judge: grouped(own, lambda r: r.place.state) for judge, own in said.items()}

    @property
    def read_by(self) -> str:
        """Who read; stands with every number that comes from readings."""
        people, models = (", ".join(x for x, own in self.kinds.items() if own == kind) for kind in ("person", "model"))
        said = [f"people ({people})"] if people else []
        if models:
            said.append(f"language models ({models}), which agree with one another more than people do")
        return f"Read blind by {' and by '.join(said)}."


def load_readings(folder: Path, key_file: Path, files: Sequence[Path]) -> Readings:
    """The verdicts in FILES on the sheet in FOLDER, with methods for letters; a DataError where something is wrong."""
    key, kinds, said = read_key(key_file, folder), dict[str, Kind](), dict[tuple[str, str], _Line]()

    class Checked(_Line):
        def model_post_init(self, _: object) -> None:
            _check(self, key)
            if (self.reader, self.state) in said:
                raise DataError(f"reader {self.reader!r} has answered state {self.state!r} already")
            if (before := kinds.setdefault(self.reader, self.kind)) != self.kind:
                raise DataError(f"reader {self.reader!r} was a {before} before, and is a {self.kind} here")
            said[self.reader, self.state] = self

    for path in files:
        read_records(path, Checked, "a verdict is as the sheet's instructions.md says")
    if not said:
        raise DataError("no verdicts", files[0] if files else folder, fix="give files of verdicts, JSON lines")
    readings = list[Reading]()
    for name, place in sorted(key.states.items(), key=lambda item: item[1].state):
        for reader, kind in kinds.items():
            line = said.get((reader, name)) or _Line(state=name, reader=reader, kind=kind)
            readings.append(Reading(reader, place, line.grades, line.prefer))
    return Readings(key.pairs, kinds, tuple(readings))


def judgements_of(found: Readings, judge: str = POOLED) -> list[Judgement]:
    """Verdicts of one reader (`reader NAME`), or of all together, as those of any judge.

    Several readers of a state are averaged: the probabilities are their shares, the outcome is the most frequent one,
    and a balance is a tie. What nobody answered is masked.
    """
    own, out = found.judges.get(judge) or grouped(found.readings, lambda r: r.place.state), list[Judgement]()
    for pair, (state, readings) in product(found.pairs, own.items()):
        said = [x for r in readings if (x := r.outcome(*pair)) is not None]
        win, loss, tie = (said.count(outcome) / max(1, len(said)) for outcome in ("win", "loss", "tie"))
        (user, dialogue, turn), outcome = state, Verdict(win, loss, tie).outcome
        out.append(Judgement(*pair, judge, user, dialogue, turn, 0, win, loss, tie, outcome, masked=not said))
    return out


def _check(line: _Line, key: Key) -> None:
    """Refuse, by a DataError, what the sheet contradicts."""
    state = f"state {line.state!r}"
    if (place := key.states.get(line.state)) is None:
        raise DataError(f"the sheet has no {state}")
    letters = sorted(set(place.letters.values()))
    if other := [letter for letter in line.grades if letter not in letters]:
        raise DataError(f"{state} has no reply {other[0]!r}, only {', '.join(letters)}")
    for pair, said in line.prefer.items():
        if pair not in place.pairs:
            raise DataError(f"{state} has no pair {pair!r}, only {', '.join(place.pairs) or 'one reply'}")
        if said not in (*pair.split("-"), "tie"):
            raise DataError(f"{said!r} is no answer to {pair}: one of the two letters, or tie")
