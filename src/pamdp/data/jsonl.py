"""Our own JSON lines: one dialogue or one preference pair a line, read and written without loss.

Owns the fields of these two layouts, what a dialogue needs to be whole, and the atomic writing of lines. Knows nothing
of other data sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from pamdp.data.fields import ChatHistory, Fields, Items, Loose, PersonaFields, Text, name_for
from pamdp.data.reading import Record
from pamdp.errors import DataError
from pamdp.files import Json, json_line, write_atomic
from pamdp.types import Branch, Dialogue, PreferencePair, Turn


class _JsonLinesTurn(Fields):
    user: Text
    preferred: Text | None = None
    rejected: Text | None = None
    chosen: Branch = "preferred"
    inferred: PersonaFields = PersonaFields()


def _named(value: object) -> object:
    """A number may be a name."""
    return str(value) if type(value) is int else value


_Name = Annotated[Loose, BeforeValidator(_named)]


class NamedFields(PersonaFields):
    """A persona, what its dialogue is called, and what makes one user of several dialogues; all may be missing."""

    id: _Name = ""
    user_id: _Name = ""

    def dialogue(self, record: Record, turns: tuple[Turn, ...]) -> Dialogue:
        """The dialogue with these turns; a DataError where one before the last has no reply on the chosen path.

        Where no user is named it is the profile, so that a split by user never has one profile on both sides.
        """
        for number, turn in enumerate(turns[:-1], 1):
            if turn.reply is None:
                raise record.fault(
                    f"turn {number}: no {turn.chosen} reply, which the dialogue goes on with", "write it"
                )
        name = self.id or record.name
        return Dialogue(name, self.user_id or name_for(self.profile or name), self.persona, turns)


class _JsonLinesDialogue(NamedFields):
    turns: Items[_JsonLinesTurn]


class PairFields(PersonaFields):
    """A preference pair."""

    id: Loose = ""
    history: ChatHistory
    preferred: Text
    rejected: Text
    kind: Loose = ""
    twin: Text | None = None

    def pair(self, name: str) -> PreferencePair:
        """The pair, called NAME if it has no id of its own."""
        replies = self.preferred, self.rejected
        return PreferencePair(self.id or name, self.persona, self.history, *replies, self.kind, self.twin)


def dialogue(record: Record) -> Dialogue:
    """The dialogue of one line."""
    line = record.read(_JsonLinesDialogue)
    turns = (Turn(t.user, t.preferred, t.rejected, t.chosen, t.inferred.persona) for t in line.turns)
    return line.dialogue(record, tuple(turns))


def pair(record: Record) -> PreferencePair:
    """The preference pair of one line."""
    return record.read(PairFields).pair(record.name)


def write_dialogues(path: str | Path, dialogues: Iterable[Dialogue]) -> int:
    """Write dialogues as our own lines, whole or not at all; returns how many. A DataError where it cannot be done."""
    return write_lines(path, map(as_line, dialogues))


def write_pairs(path: str | Path, pairs: Iterable[PreferencePair]) -> int:
    """Write preference pairs as our own lines; otherwise like `write_dialogues`."""
    return write_lines(path, map(as_line, pairs))


def as_line(item: Dialogue | PreferencePair) -> dict[str, Json]:
    """The fields of a line: those of the persona stand beside the item's own."""
    line: dict[str, Json] = {}
    for name, value in asdict(item).items():
        line |= value if name == "persona" else {name: value}
    return line


def write_lines(path: str | Path, lines: Iterable[Mapping[str, Json]]) -> int:
    """Write objects one a line in UTF-8; otherwise like `write_dialogues`."""
    texts = [json_line(line) for line in lines]
    try:
        write_atomic(Path(path), "".join(texts))
    except UnicodeEncodeError as error:
        line = error.object.count("\n", 0, error.start) + 1
        raise DataError("a text holds half a character", path, line, "mend the text") from None
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}", path) from error
    return len(texts)
