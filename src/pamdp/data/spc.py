"""Synthetic-Persona-Chat's layout: a CSV table with the personas of two users and what they said to each other.

Owns the table's columns and the "User 1: ..." lines inside a cell. Knows nothing of files. User 2 speaks as the
assistant, the personas of User 1 are the profile.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import zip_longest

from pydantic import Field

from pamdp.data.fields import Fields, Text, name_for
from pamdp.data.reading import Record
from pamdp.types import Dialogue, Persona, Turn

_SPEAKER = re.compile(r"[\s*]*User ([12])[\s*]*:[\s*]*(.*)", re.IGNORECASE | re.DOTALL)
_STAGE = re.compile(r"\*[\s*]*\*|\[.*\]?|\(.*\)|\*[^*]*\*")
_COLUMNS = ("user 1 personas", "user 2 personas", "conversation")


class _RowFields(Fields):
    personas: Text = Field(alias="user 1 personas")
    conversation: Text


def detect(header: str) -> bool:
    """Whether the first line of a file is this table's header."""
    names = [name.strip().strip('"').casefold() for name in header.split(",")]
    return len(names) >= 3 and names[:2] == list(_COLUMNS[:2])


def dialogue(record: Record) -> Dialogue:
    """The dialogue of one row.

    A line without a speaker goes on with what was said before. Stage directions, lines before the first speaker, and
    what User 2 says before User 1 has spoken are left out and counted.
    """
    cells = record.value
    if not isinstance(cells, list) or len(cells) < 3:
        raise record.fault("the row has fewer than three cells", "write personas 1, personas 2, conversation")
    row = replace(record, value=dict(zip(_COLUMNS, cells, strict=False))).read(_RowFields)
    said = _utterances(row.conversation, record.notes)
    if not said:
        raise record.fault("`conversation` has no line that starts with `User 1:`", "name the speaker on every line")
    if said[0][0] == "2":
        record.notes.append("openings by User 2 left out")
        said = said[1:]
    if not said:
        raise record.fault("`conversation` has nothing that User 1 says", "leave this row out")
    texts = [text.strip() for _, text in said]
    if "" in texts:
        raise record.fault(f"`conversation` has an empty line of User {said[texts.index('')][0]}", "write what is said")
    profile = " ".join(row.personas.splitlines())
    turns = tuple(Turn(user, reply) for user, reply in zip_longest(texts[::2], texts[1::2]))
    return Dialogue(record.name, name_for(profile), Persona(profile), turns)


def _utterances(text: str, notes: list[str]) -> list[tuple[str, str]]:
    """Speaker and text in order; what one speaker says on several lines is one utterance."""
    said: list[tuple[str, str]] = []
    for line in text.splitlines():
        if spoken := _SPEAKER.fullmatch(line):
            speaker, words = spoken[1], spoken[2].rstrip(" *")
            if said and said[-1][0] == speaker:
                notes.append("utterances of one speaker in a row, joined")
                said[-1] = (speaker, f"{said[-1][1]}\n{words}")
            else:
                said.append((speaker, words))
        elif not line.strip():
            continue
        elif _STAGE.fullmatch(line.strip()):
            notes.append("stage directions left out")
        elif not said:
            notes.append("lines before the first speaker left out")
        else:
            said[-1] = (said[-1][0], f"{said[-1][1]}\n{line.strip()}")
    return said
