"""Typed access to the fields of a record: each text is checked where it is taken, each fault names its field.

Owns what a usable text is (a non-empty string of Unicode up to MAX_TEXT characters, without NUL), and how lists of chat
messages must alternate. Knows nothing of any data set.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pamdp.data.reading import Record
from pamdp.errors import DataError
from pamdp.types import History, Message

MAX_TEXT = 100_000
"""Characters in one text. A longer one is a file in the wrong field, not something that somebody said."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_Choice = TypeVar("_Choice", bound=str)


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object with the place where it stands; `where` is that place inside the record, such as "turn 3: "."""

    values: Mapping[str, object]
    record: Record
    where: str = ""

    @classmethod
    def of(cls, record: Record) -> Fields:
        """The record's own object.

        Raises:
          DataError: the record is no JSON object.
        """
        return cls._checked(record.value, record, "")

    @classmethod
    def _checked(cls, value: object, record: Record, where: str) -> Fields:
        if not isinstance(value, dict):
            raise record.fault(f"{where}{_kind(value)} where a JSON object belongs", 'write {"name": value, ...}')
        return cls(value, record, where)

    def fault(self, what: str, fix: str = "") -> DataError:
        """The error that says `what` is wrong in this object."""
        return self.record.fault(f"{self.where}{what}", fix)

    def optional(self, name: str) -> str | None:
        """The text, or None where the field is absent or null.

        Raises:
          DataError: the field is there but no usable text.
        """
        value = self.values.get(name)
        return None if value is None else self.usable(name, value)

    def text(self, name: str) -> str:
        """The text, which must be there.

        Raises:
          DataError: the field is absent, null or no usable text.
        """
        value = self.optional(name)
        if value is None:
            raise self.fault(f"`{name}` is missing", "write it, or leave this record out")
        return value

    def loose(self, name: str) -> str:
        """The text, or the empty one where the field is absent, null or blank.

        Raises:
          DataError: the field holds something that is no usable text.
        """
        value = self.values.get(name)
        return "" if value is None or (isinstance(value, str) and not value.strip()) else self.usable(name, value)

    def choice(self, name: str, options: Sequence[_Choice], default: _Choice) -> _Choice:
        """One of the options, or the default where the field is absent or null.

        Raises:
          DataError: the field holds anything else.
        """
        value = self.values.get(name)
        if value is None:
            return default
        for option in options:
            if option == value:
                return option
        raise self.fault(f"`{name}` is {str(value)[:40]!r}", f"write one of: {', '.join(options)}")

    def inner(self, name: str) -> Fields:
        """The object in a field.

        Raises:
          DataError: the field is absent or no object.
        """
        return self._checked(self.values.get(name), self.record, f"{self.where}`{name}`: ")

    def objects(self, name: str, each: str) -> list[Fields]:
        """The objects of a list, called "`each` 1", "`each` 2", ... in messages.

        Raises:
          DataError: the field is no list, is empty, or holds something that is no object.
        """
        value = self.values.get(name)
        if not isinstance(value, list):
            raise self.fault(f"`{name}` is {_kind(value)} where a list belongs", "write [{...}, ...]")
        if not value:
            raise self.fault(f"`{name}` is an empty list", "leave this record out")
        return [self._checked(item, self.record, f"{self.where}{each} {n}: ") for n, item in enumerate(value, 1)]

    def usable(self, name: str, value: object) -> str:
        """The value as a text without outer white space.

        Raises:
          DataError: it is no string, blank, too long, or holds NUL or half a character.
        """
        if not isinstance(value, str):
            raise self.fault(f"`{name}` is {_kind(value)} where a text belongs", "write one string")
        text = value.strip()
        if not text:
            raise self.fault(f"`{name}` is empty", "write the text, or leave this record out")
        if len(text) > MAX_TEXT:
            what = f"`{name}` has {len(text):,} characters; the limit is {MAX_TEXT:,}"
            raise self.fault(what, "shorten it: this looks like a file, not a message")
        if "\0" in text:
            raise self.fault(f"`{name}` holds a NUL byte", "remove it: is this a text file?")
        if _SURROGATE.search(text):
            raise self.fault(f"`{name}` holds bytes that are not UTF-8, or half a character", "save the file as UTF-8")
        return text


def _kind(value: object) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "nothing"
    names = {str: "a text", bool: "true or false", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def messages(fields: Fields, name: str) -> History:
    """The chat messages of a list, of which user and assistant speak in turn.

    A system message at the start belongs to whoever wrote it, not to the person: it is left out and counted.

    Raises:
      DataError: the list does not start with the user, two of one role follow each other, or a role is unknown.
    """
    items = fields.objects(name, f"`{name}` message")
    if items[0].values.get("role") == "system" and len(items) > 1:
        fields.record.notes.append("system messages left out")
        items = items[1:]
    found: list[Message] = []
    for item in items:
        expected = "assistant" if len(found) % 2 else "user"
        if item.values.get("role") != expected:
            what = f"`role` is {str(item.values.get('role'))[:40]!r} where {expected!r} belongs"
            raise item.fault(what, "user and assistant must speak in turn, the user first")
        found.append(Message("assistant" if len(found) % 2 else "user", item.text("content")))
    return tuple(found)


def history(fields: Fields, name: str) -> History:
    """The messages of a list that ends with the user, as a history must.

    Raises:
      DataError: the roles are wrong, or the last message is not the user's.
    """
    found = messages(fields, name)
    if len(found) % 2 == 0:
        raise fields.fault(f"`{name}` ends with the assistant", "the last message of a history is the user's")
    return found


def name_for(text: str) -> str:
    """A short stable name for a text, such as a profile: the same person gets the same user id in every file."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass")).hexdigest()[:12]
