"""Synthetic-Persona-Chat's layout: a CSV table with the personas of two users and what they said to each other.

Owns the table's columns and the "User 1: ..." lines inside a cell. Knows nothing of files. User 2 speaks as the
assistant, the personas of User 1 are the profile.
"""

from __future__ import annotations

import re

from pamdp.data.fields import Fields, name_for
from pamdp.data.reading import Record
from pamdp.types import Dialogue, Persona, Turn

_SPEAKER = re.compile(r"[\s*]*User ([12])[\s*]*:[\s*]*(.*)", re.IGNORECASE | re.DOTALL)
_STAGE = re.compile(r"\*[\s*]*\*|\[.*\]?|\(.*\)|\*[^*]*\*")
_COLUMNS = ("user 1 personas", "user 2 personas", "conversation")


def detect(header: object) -> bool:
    """Whether the first line of a file is this table's header."""
    if not isinstance(header, str):
        return False
    names = [name.strip().strip('"').casefold() for name in header.split(",")]
    return len(names) >= 3 and names[:2] == list(_COLUMNS[:2])


def dialogue(record: Record) -> Dialogue:
    """The dialogue of one row.

    A line without a speaker goes on with what was said before. Stage directions, lines before the first speaker, and
    what User 2 says before User 1 has spoken are left out and counted.

    Raises:
      DataError: the row has not three cells, no line names a speaker, User 1 says nothing, or a text is unusable.
    """
    row = record.value
    if not isinstance(row, list) or len(row) < 3:
        raise record.fault("the row has fewer than three cells", "write personas 1, personas 2, conversation")
    fields = Fields(dict(zip(_COLUMNS, row, strict=False)), record)
    persona = Persona(profile=" ".join(fields.text(_COLUMNS[0]).splitlines()))
    said = _utterances(fields.usable("conversation", row[2]), record)
    if not said:
        raise fields.fault("`conversation` has no line that starts with `User 1:`", "name the speaker on every line")
    if said[0][0] == "2":
        record.notes.append("openings by User 2 left out")
        said = said[1:]
    texts = [fields.usable(f"what User {speaker} says", text) for speaker, text in said]
    if not texts:
        raise fields.fault("User 1 says nothing", "leave this row out")
    replies: list[str | None] = [*texts[1::2]]
    if len(texts) % 2:
        replies.append(None)
    turns = tuple(Turn(user, preferred=reply) for user, reply in zip(texts[::2], replies, strict=True))
    return Dialogue(record.name, name_for(persona.profile), persona, turns)


def _utterances(text: str, record: Record) -> list[tuple[str, str]]:
    """Speaker and text in order; what one speaker says on several lines is one utterance."""
    said: list[tuple[str, str]] = []
    for line in text.splitlines():
        if spoken := _SPEAKER.fullmatch(line):
            speaker, words = spoken[1], spoken[2].rstrip(" *")
            if said and said[-1][0] == speaker:
                record.notes.append("utterances of one speaker in a row, joined")
                said[-1] = (speaker, f"{said[-1][1]}\n{words}")
            else:
                said.append((speaker, words))
        elif not line.strip():
            continue
        elif _STAGE.fullmatch(line.strip()):
            record.notes.append("stage directions left out")
        elif not said:
            record.notes.append("lines before the first speaker left out")
        else:
            said[-1] = (said[-1][0], f"{said[-1][1]}\n{line.strip()}")
    return said
