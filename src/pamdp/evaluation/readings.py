"""What blind readers said of a sheet, and their verdicts as judgements, beside those of the model judges.

Owns the files of verdicts, what is wrong with them, and what a reading is once the key is applied. Knows nothing of how
readings are summed up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from pamdp.data.readings import Answers, Grades, Kind, ReadReply, ReadState
from pamdp.errors import DataError
from pamdp.evaluation.reading_sheet import Key, SheetState, read_key
from pamdp.evaluation.records import Judgement, State, grouped
from pamdp.judges.base import Outcome, Verdict
from pamdp.models.recorded import Replies
from pamdp.stored import read_records
from pamdp.types import Message, Persona

POOLED = "readers"
"""The judge that all readers of a state are together."""


class _Line(Answers):
    """A line of a file of verdicts."""

    state: str


class _Shown(BaseModel):
    """A line of a sheet."""

    state: str
    persona: str
    earlier_messages: int
    messages: list[dict[Literal["from", "text"], str]]
    replies: dict[str, str]
    pairs: list[str]


@dataclass(frozen=True, slots=True)
class Reading:
    """One reader on one state of the sheet; what was not answered is absent."""

    reader: str
    place: SheetState
    grades: Grades
    prefer: dict[str, str]  # pair of letters, `A-B` -> one of them, or `tie`
    texts: dict[str, str]  # letter -> reply

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
    key = read_key(key_file, folder)
    kinds, said = _answered(key, folder, files)
    texts = {shown.state: shown.replies for shown in _shown(folder)}
    readings = list[Reading]()
    for name, place in sorted(key.states.items(), key=lambda item: item[1].state):
        for reader, kind in kinds.items():
            line = said.get((reader, name)) or _Line(state=name, reader=reader, kind=kind)
            readings.append(Reading(reader, place, line.grades, line.prefer, texts[name]))
    return Readings(key.pairs, kinds, tuple(readings))


def require_same_replies(found: Readings, replies: Mapping[str, Replies]) -> None:
    """A DataError where a method no longer replies as on the sheet: verdicts are of the replies that were read."""
    for reading in found.readings:
        _, dialogue, turn = reading.place.state
        for method, letter in reading.place.letters.items():
            now = replies.get(method, {}).get((dialogue, turn))
            if now is not None and now.split() != reading.texts[letter].split():
                raise DataError(
                    f"{method} replied otherwise to turn {turn + 1} of {dialogue} when the sheet was written",
                    fix="write a new sheet with `pamdp read` and have it read",
                )


def _shown(folder: Path) -> list[_Shown]:
    return read_records(folder / "sheet.jsonl", _Shown, "take the sheet as it was written")


def read_states(
    folder: Path, key_file: Path, files: Sequence[Path], profiles: Mapping[str, Persona]
) -> list[ReadState]:
    """The same verdicts as what judges learn from: the states that somebody answered, whole, with who wrote what.

    PROFILES: personas by dialogue, where profile and personality should be kept apart; a sheet shows them as one text.
    """
    key, out = read_key(key_file, folder), list[ReadState]()
    _, said = _answered(key, folder, files)
    for shown in _shown(folder):
        (user, dialogue, turn), letters = key.states[shown.state].state, key.states[shown.state].letters
        lines = (line for (_, s), line in said.items() if s == shown.state and (line.grades or line.prefer))
        own = tuple(Answers(**line.model_dump(exclude={"state"})) for line in lines)
        person = profiles.get(dialogue, Persona(shown.persona))
        by = grouped(letters, letters.__getitem__)
        replies = {letter: ReadReply(text=text, by=tuple(by[letter])) for letter, text in shown.replies.items()}
        history = tuple(Message("user" if m["from"] == "user" else "assistant", m["text"]) for m in shown.messages)
        if own:
            out.append(ReadState(
                id=f"{dialogue}/{turn}", user_id=user, profile=person.profile, personality=person.personality,
                history=history, replies=replies, readings=own,
            ))  # fmt: skip
    return out


def _answered(key: Key, folder: Path, files: Sequence[Path]) -> tuple[dict[str, Kind], dict[tuple[str, str], _Line]]:
    """Readers and what each said of each state, checked against the key."""
    kinds, said = dict[str, Kind](), dict[tuple[str, str], _Line]()

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
    return kinds, said


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
