"""What a record may hold: usable texts and chat histories, and words for the first thing that is wrong with one.

Owns the limits of a text and what every fault says. Knows nothing of files or of any one layout: a layout describes its
records as models made of these. A field that nobody asks for is ignored.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, TypeVar

from annotated_types import MinLen
from pydantic import BaseModel, FailFast, Field, PlainValidator, Strict, TypeAdapter, ValidationError
from pydantic import ValidationInfo as Info
from pydantic_core import PydanticCustomError

from pamdp.types import History, Message, Persona

MAX_TEXT = 100_000
"""Characters in one text. A longer one is a file in the wrong field, not something that somebody said."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_T = TypeVar("_T")


def fault(what: str, fix: str) -> PydanticCustomError:
    """What a validator raises; WHAT goes on after the field's name, as in "`user` is empty"."""
    return PydanticCustomError("fault", "{what}", {"what": what, "fix": fix})


def note(info: Info, repair: str) -> None:
    """Count something that was mended or left out inside a record, once the record is accepted."""
    if info.context is not None:
        info.context.append(repair)


def usable(value: object) -> str:
    """The value as a text without outer white space.

    Raises:
      PydanticCustomError: it is no string, blank, too long, or holds NUL or half a character.
    """
    if value is None:
        raise fault("is missing", "write it, or leave this record out")
    if not isinstance(value, str):
        raise fault(f"is {_kind(value)} where a text belongs", "write one string")
    text = value.strip()
    if not text:
        raise fault("is empty", "write the text, or leave this record out")
    if len(text) > MAX_TEXT:
        what = f"has {len(text):,} characters; the limit is {MAX_TEXT:,}"
        raise fault(what, "shorten it: this looks like a file, not a message")
    if "\0" in text:
        raise fault("holds a NUL byte", "remove it: is this a text file?")
    if _SURROGATE.search(text):
        raise fault("holds bytes that are not UTF-8, or half a character", "save the file as UTF-8")
    return text


def _loose(value: object) -> str:
    return "" if isinstance(value, str) and not value.strip() else usable(value)


Text = Annotated[str, PlainValidator(usable)]
"""A usable text."""
Loose = Annotated[str, PlainValidator(_loose)]
"""A usable text or a blank one, which becomes the empty text; give it the default ""."""
Items = Annotated[list[_T], Strict(False), FailFast(), MinLen(1)]
"""A list that is not empty; of its faults only the first is looked for, however long it is."""


class Fields(BaseModel, strict=True):
    """Base of what describes a record."""


class PersonaFields(Fields):
    """Profile and personality; either may be missing."""

    profile: Loose = ""
    personality: Loose = ""

    @property
    def persona(self) -> Persona:
        """Both as one."""
        return Persona(self.profile, self.personality)


def _content(value: object, info: Info) -> str:
    return "" if info.data.get("role") == "system" else usable(value)


class ChatMessage(Fields):
    """One message as chat models have it; what a system message holds is not looked at."""

    role: Any = None
    content: Annotated[str, PlainValidator(_content)] = Field(default=None, validate_default=True)


MESSAGES = TypeAdapter(Items[ChatMessage])


def _history(value: object, info: Info) -> History:
    said = MESSAGES.validate_python(value)
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


def explain(error: ValidationError) -> tuple[str, str]:
    """The first thing that is wrong, with the name of its field, and what to do about it."""
    first = error.errors(include_url=False)[0]
    value, context = first["input"], first.get("ctx", {})
    parts = [f"item {part + 1}" if isinstance(part, int) else f"`{repr(part)[1:-1][:60]}`" for part in first["loc"]]
    place = ", ".join(parts) or "the record"
    match first["type"]:
        case "fault":
            what, fix = context["what"], context["fix"]
        case "missing":
            what, fix = "is missing", "write it, or leave this record out"
        case "list_type":
            what, fix = f"is {_kind(value)} where a list belongs", "write [{...}, ...]"
        case "model_type" | "dict_type":
            what, fix = f"is {_kind(value)} where a JSON object belongs", 'write {"name": value, ...}'
        case "too_short":
            what = f"is a list of {context['actual_length']} where {context['min_length']} or more belong"
            fix = "complete it, or leave this record out"
        case "literal_error":
            what, fix = f"is {str(value)[:40]!r}", f"write {context['expected']}"
        case _:
            return f"{place}: {first['msg'].removeprefix('Value error, ')}", "mend it, or leave this record out"
    return f"{place} {what}", fix


def _kind(value: object) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "nothing"
    names = {str: "a text", bool: "true or false", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def name_for(text: str) -> str:
    """A short stable name for a text, such as a profile: the same person gets the same user id in every file."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass")).hexdigest()[:12]
