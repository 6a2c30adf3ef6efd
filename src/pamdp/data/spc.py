"""Synthetic-Persona-Chat's layout: a CSV table with the personas of two users and what they said to each other.

Owns the table's columns and the "User 1: ..." lines inside a cell. Knows nothing of files. User 2 speaks as the
assistant, the personas of User 1 are the profile.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import zip_longest
from typing import Annotated

from pydantic import Field, PlainValidator
from pydantic import ValidationInfo as Info

from pamdp.data.fields import Fields, Text, fault, name_for, note, usable
from pamdp.data.reading import Record
from pamdp.types import Dialogue, Persona, Turn

_SPEAKER = re.compile(r"[\s*]*User ([12])[\s*]*:[\s*]*(.*)", re.IGNORECASE | re.DOTALL)
_STAGE = re.compile(r"\*[\s*]*\*|\[.*\]?|\(.*\)|\*[^*]*\*")
_COLUMNS = ("user 1 personas", "user 2 personas", "conversation")


def detect(header: str) -> bool:
    """Whether the first line of a file is this table's header."""
    names = [name.strip().strip('"').casefold() for name in header.split(",")]
    return len(names) >= 3 and names[:2] == list(_COLUMNS[:2])


def _utterances(value: object, info: Info) -> list[str]:
    """What is said in turn, User 1 first; what one speaker says on several lines is one utterance."""
    said: list[tuple[str, str]] = []
    for line in usable(value).splitlines():
        if spoken := _SPEAKER.fullmatch(line):
            speaker, words = spoken[1], spoken[2].rstrip(" *")
            if said and said[-1][0] == speaker:
                note(info, "utterances of one speaker in a row, joined")
                said[-1] = (speaker, f"{said[-1][1]}\n{words}")
            else:
                said.append((speaker, words))
        elif not line.strip():
            continue
        elif _STAGE.fullmatch(line.strip()):
            note(info, "stage directions left out")
        elif not said:
            note(info, "lines before the first speaker left out")
        else:
            said[-1] = (said[-1][0], f"{said[-1][1]}\n{line.strip()}")
    if not said:
        raise fault("has no line that starts with `User 1:`", "name the speaker on every line")
    if said[0][0] == "2":
        note(info, "openings by User 2 left out")
        said = said[1:]
    if not said:
        raise fault("has nothing that User 1 says", "leave this row out")
    for speaker, words in said:
        if not words.strip():
            raise fault(f"has a line of User {speaker} that is empty", "write what is said, or leave this row out")
    return [words.strip() for _, words in said]


class _RowFields(Fields):
    """A row: a line without a speaker goes on with what was said before it.

    Stage directions, lines before the first speaker, and what User 2 says before User 1 are left out and counted.
    """

    personas: Text = Field(alias="user 1 personas")
    conversation: Annotated[list[str], PlainValidator(_utterances)]


def dialogue(record: Record) -> Dialogue:
    """The dialogue of one row."""
    cells = record.value
    if not isinstance(cells, list) or len(cells) < 3:
        raise record.fault("the row has fewer than three cells", "write personas 1, personas 2, conversation")
    row = replace(record, value=dict(zip(_COLUMNS, cells, strict=False))).read(_RowFields)
    profile = " ".join(row.personas.splitlines())
    turns = zip_longest(row.conversation[::2], row.conversation[1::2])
    return Dialogue(record.name, name_for(profile), Persona(profile), tuple(Turn(user, reply) for user, reply in turns))
