"""ALOE's layout: persona dialogues as JSON lines, and the pool of personas they were made from.

Owns ALOE's field names and habits (a reply may be a list, "None" means nothing is known yet). Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, WrapValidator

from pamdp.data.fields import Fields, Items, Loose, Text, fault, note
from pamdp.data.jsonl import NamedFields
from pamdp.data.reading import Record, decode
from pamdp.types import Branch, Dialogue, Persona, Turn


def _first(value: object, info: ValidationInfo) -> object:
    """One reply; of a list the first that says something."""
    if not isinstance(value, list):
        return value
    for text in value:
        if not isinstance(text, str):
            raise fault("is a list that holds something other than texts", "write one string")
        if text.strip():
            note(info, "replies given as lists, the first text taken")
            return text
    raise fault("is a list without a text", "write one string")


def _known(text: str) -> str:
    """An inferred text, where ALOE writes "None" for nothing."""
    return "" if text.rstrip(".").casefold() == "none" else text


def _unquoted(value: object, usable: Callable[[object], str]) -> str:
    """A persona text; ALOE's script copied whole lines of its pool, JSON quotation marks included."""
    text = usable(value)
    if not text.startswith('"'):
        return text
    try:
        inner, end = decode(text)
    except ValueError:
        return text
    if end < len(text) and text[end] == '"':
        raise fault("holds two texts, so two persons", "keep one of them")
    return usable(inner) if end == len(text) else text


class _RepliesFields(Fields):
    preferred: Annotated[Text | None, BeforeValidator(_first)] = None
    rejected: Annotated[Text | None, BeforeValidator(_first)] = None


class _AloeTurn(Fields):
    user: Text
    assistant: _RepliesFields
    chosen: Branch = "preferred"
    inferred_profile: Annotated[Loose, AfterValidator(_known)] = ""
    inferred_personality: Annotated[Loose, AfterValidator(_known)] = ""

    def turn(self) -> Turn:
        inferred = Persona(self.inferred_profile, self.inferred_personality)
        return Turn(self.user, self.assistant.preferred, self.assistant.rejected, self.chosen, inferred)


class _AloeDialogue(NamedFields):
    """ALOE gives neither ids nor users, but talks with each profile many times."""

    profile: Annotated[Loose, WrapValidator(_unquoted)] = ""
    personality: Annotated[Loose, WrapValidator(_unquoted)] = ""
    conversations: Items[_AloeTurn]


def detect(record: dict[str, object]) -> bool:
    """Whether a record is ALOE's; other chats have `conversations` too, whose messages name their speaker."""
    said = record.get("conversations")
    return isinstance(said, list) and bool(said) and isinstance(said[0], dict) and "user" in said[0]


def dialogue(record: Record) -> Dialogue:
    """The dialogue of one line."""
    line = record.read(_AloeDialogue)
    return line.dialogue(record, tuple(item.turn() for item in line.conversations))


class _PoolFields(Fields):
    text: Text


def persona_text(record: Record) -> str:
    """One text of the persona pool (profile.jsonl, personality.jsonl)."""
    return replace(record, value={"text": record.value}).read(_PoolFields).text
