"""What a record may hold: usable texts and chat histories, and words for the first thing that is wrong with one.

Owns the limits of a text and what every fault says. Knows nothing of files or of any one layout: a layout describes its
records as models made of these. A field that nobody asks for is ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError, model_validator
from pydantic.functional_validators import BeforeValidator, PlainValidator, WrapValidator
from pydantic.types import FailFast, Strict
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo as Info

from pamdp.types import History, Message, Persona

MAX_TEXT = 100_000
"""Characters in one text. A longer one is a file in the wrong field, not something that somebody said."""
_T = TypeVar("_T")


def _loose(value: object, usable: Callable[[object], str]) -> str:
    return "" if isinstance(value, str) and not value.strip() else usable(value)


Text = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_TEXT, pattern=r"^[^\x00]*$"),
    BeforeValidator(lambda value: value.strip() if isinstance(value, str) else value),
]
"""A usable text: not blank, not too long, of whole characters and without NUL; outer white space goes."""
Loose = Annotated[Text, WrapValidator(_loose)]
"""A usable text or a blank one, which becomes the empty text; give it the default ""."""
Items = Annotated[list[_T], Strict(False), FailFast(), Field(min_length=1)]
"""A list that is not empty; of its faults only the first is looked for, however long it is."""

_OBJECT = ("is {kind} where a JSON object belongs", 'write {{"name": value, ...}}')
_FAULTS = {
    "fault": ("{what}", "{fix}"),
    "missing": ("is missing", "write it, or leave this record out"),
    "string_type": ("is {kind} where a text belongs", "write one string"),
    "string_too_short": ("is empty", "write the text, or leave this record out"),
    "string_too_long": ("has {length:,} characters; the limit is {max_length:,}", "shorten it: is this a whole file?"),
    "string_pattern_mismatch": ("holds a NUL byte", "remove it: is this a text file?"),
    "string_unicode": ("holds bytes that are not UTF-8, or half a character", "save the file as UTF-8"),
    "list_type": ("is {kind} where a list belongs", "write [{{...}}, ...]"),
    "model_type": _OBJECT,
    "dict_type": _OBJECT,
    "too_short": ("is a list of {actual_length} where {min_length} or more belong", "complete it, or leave it out"),
    "too_long": ("is a list of {actual_length} where {max_length} belong", "split it, or leave it out"),
    "literal_error": ("is {value!r}", "write {expected}"),
}
"""What is said of a fault that pydantic finds, and what to do about it."""
_KINDS = {str: "a text", bool: "true or false", list: "a list", dict: "an object", type(None): "nothing"}


def explain(error: ValidationError) -> tuple[str, str]:
    """The first thing that is wrong, with the name of its field, and what to do about it."""
    first = error.errors(include_url=False)[0]
    value = first["input"]
    parts = [f"item {part + 1}" if isinstance(part, int) else f"`{repr(part)[1:-1][:60]}`" for part in first["loc"]]
    place = ", ".join(parts) or "the record"
    nothing = value is None and first["type"] == "string_type"
    if (fault := "missing" if nothing else first["type"]) not in _FAULTS:
        return f"{place}: {first['msg'].removeprefix('Value error, ')}", "mend it, or leave this record out"
    known = {"kind": _KINDS.get(type(value), "a number"), "length": len(str(value)), "value": str(value)[:40]}
    what, fix = (text.format_map(known | first.get("ctx", {})) for text in _FAULTS[fault])
    return f"{place} {what}", fix


def fault(what: str, fix: str) -> PydanticCustomError:
    """What a validator raises; WHAT goes on after the field's name, as in "`user` is empty"."""
    return PydanticCustomError("fault", "{what}", {"what": what, "fix": fix})


def note(info: Info, repair: str) -> None:
    """Count something that was mended or left out inside a record, once the record is accepted."""
    if info.context is not None:
        info.context.append(repair)


class Fields(BaseModel, strict=True):
    """Base of what describes a record; a field that is null counts as absent."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: object) -> object:
        return {name: item for name, item in value.items() if item is not None} if isinstance(value, dict) else value


class PersonaFields(Fields):
    """Profile and personality; either may be missing."""

    profile: Loose = ""
    personality: Loose = ""

    @property
    def persona(self) -> Persona:
        """Both as one."""
        return Persona(self.profile, self.personality)


def plain_text(value: object, info: Info) -> object:
    """The text of a message that may be a list of parts; parts that are no text (pictures, sound) are left out."""
    if not isinstance(value, list):
        return value
    parts = [part.get("text") if isinstance(part, dict) else part for part in value]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        note(info, "parts of messages that are no text left out")
    if len(texts) > 1:
        note(info, "parts of one message joined")
    return "\n".join(texts)


def _content(value: object, usable: Callable[[object], str], info: Info) -> str:
    return "" if info.data.get("role") == "system" else usable(plain_text(value, info))


class ChatMessage(Fields):
    """One message as chat models have it; what a system message holds is not looked at."""

    role: Any = None
    content: Annotated[Text, WrapValidator(_content)] = Field(default=None, validate_default=True)


MESSAGES = TypeAdapter(Items[ChatMessage])


def _history(value: object, info: Info) -> History:
    said = MESSAGES.validate_python(value, context=info.context)
    first = int(said[0].role == "system" and len(said) > 1)
    if first:
        note(info, "system messages left out")
    history: list[Message] = []
    for number, message in enumerate(said[first:], first + 1):
        role = "assistant" if len(history) % 2 else "user"
        if message.role != role:
            what = f"has the role {str(message.role)[:40]!r} at item {number}, where {role!r} belongs"
            raise fault(what, "user and assistant must speak in turn, the user first")
        history.append(Message("assistant" if len(history) % 2 else "user", message.content))
    if len(history) % 2 == 0:
        raise fault("ends with the assistant", "the last message of a history is the user's")
    return tuple(history)


ChatHistory = Annotated[History, PlainValidator(_history)]
"""A list of messages in which user and assistant speak in turn, the user first and last.

A system message at the start belongs to whoever wrote it, not to the person: it is left out and counted.
"""


def name_for(text: str) -> str:
    """A short stable name for a text, such as a profile: the same person gets the same user id in every file."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass")).hexdigest()[:12]
