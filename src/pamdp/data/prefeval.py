"""PrefEval's two layouts: persona-driven dialogues and four-option items (one JSON array for each topic).

Owns PrefEval's field names. Knows nothing of files. In the dialogues the assistant's replies are the good ones and
nothing is labelled as rejected; every item is a person of its own.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from pamdp.data.fields import Fields, Text, fault
from pamdp.data.reading import Record
from pamdp.types import Dialogue, Message, Persona, PreferencePair, Turn


def _numbered(value: object) -> object:
    if isinstance(value, dict) and (not value or set(value) != {str(n) for n in range(len(value))}):
        raise fault("has turns that are not numbered 0, 1, 2, ...", "number them without a gap")
    return value


class _PrefEvalTurn(Fields):
    user: Text
    assistant: Text


class _PrefEvalDialogue(Fields):
    persona: Text
    preference: Text
    conversation: Annotated[dict[str, _PrefEvalTurn], BeforeValidator(_numbered)]


class _OptionsFields(Fields):
    preference: Text
    question: Text
    options: list[Text] = Field(alias="classification_task_options", min_length=2)


def detect(record: dict[str, object]) -> bool:
    """Whether a record is a persona-driven item; others have preferences, and conversations of another kind."""
    return "preference" in record and isinstance(record.get("conversation"), dict)


def dialogue(record: Record) -> Dialogue:
    """The dialogue of one persona-driven item: its id holds topic and number, its personality the preference."""
    item = record.read(_PrefEvalDialogue)
    said = (item.conversation[str(n)] for n in range(len(item.conversation)))
    turns = tuple(Turn(turn.user, turn.assistant) for turn in said)
    return Dialogue(record.name, record.name, Persona(item.persona, item.preference), turns)


def pairs(record: Record) -> list[PreferencePair]:
    """Three pairs of one four-option item: the first option, which is right, against each of the others.

    The three share an item, so they are not independent; their ids differ after the last colon only.
    """
    item = record.read(_OptionsFields)
    right, *wrong = item.options
    who, history = Persona(personality=item.preference), (Message("user", item.question),)
    return [
        PreferencePair(f"{record.name}:{n}", who, history, right, option, kind="conflict")
        for n, option in enumerate(wrong, 1)
    ]
