"""Chats as they are commonly kept: messages with roles, ShareGPT's, and Alpaca's instructions with their history.

Owns names of fields and speakers, and what becomes of messages that do not take turns. Knows nothing of files. What the
assistant said is the preferred reply, and nothing is labelled as rejected; profile and personality may stand beside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, takewhile, zip_longest
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, ValidationInfo, WrapValidator

from pamdp.data.fields import Fields, Items, Loose, Text, fault, plain_text
from pamdp.data.jsonl import NamedFields
from pamdp.data.reading import Record
from pamdp.types import Dialogue, Turn

_FIELDS = ("messages", "conversations", "conversation")
_ROLES = {
    "user": ("user", "human"),
    "assistant": ("assistant", "gpt", "chatgpt", "model", "bot"),
    "system": ("system", "developer"),
    "tool": ("tool", "function", "observation", "ipython", "function_call", "function_response", "tool_call",
             "tool_response"),
}  # fmt: skip
"""Who speaks -> what that is called; what system and tools say is left out."""
_SPEAKERS = {name: role for role, names in _ROLES.items() for name in names}


def _speaker(value: object) -> str:
    if (role := _SPEAKERS.get(str(value).casefold())) is None:
        raise fault(f"is {str(value)[:40]!r}", f"write {', '.join(_ROLES)}")
    return role


def _said(value: object, usable: Callable[[object], str], info: ValidationInfo) -> str:
    unread = info.data.get("role") in ("system", "tool") or (info.data.get("tool_calls") and not value)
    return "" if unread else usable(plain_text(value, info))


class _Message(Fields):
    role: Annotated[str, BeforeValidator(_speaker)] = Field(validation_alias=AliasChoices("role", "from"))
    tool_calls: Any = None
    content: Annotated[Text, WrapValidator(_said)] = Field(
        default=None, validate_default=True, validation_alias=AliasChoices("content", "value")
    )


class _Chat(NamedFields):
    messages: Items[_Message] = Field(validation_alias=AliasChoices(*_FIELDS))


class _Instruction(NamedFields):
    instruction: Text
    input: Loose = ""
    output: Text
    system: Any = None
    history: list[Annotated[list[Text], Field(min_length=2, max_length=2)]] = Field(default=[])


def names_speakers_by(speaker: str) -> Callable[[dict[str, object]], bool]:
    """Whether a record holds messages whose speaker stands in that field."""

    def detect(record: dict[str, object]) -> bool:
        lists = (said for name in _FIELDS if isinstance(said := record.get(name), list) and said)
        return any(isinstance(said[0], dict) and speaker in said[0] for said in lists)

    return detect


def dialogue(record: Record) -> Dialogue:
    """The dialogue of one chat, joined and shortened to where user and assistant take turns, the user first."""
    chat = record.read(_Chat)
    said = _in_turn(chat.messages, record.notes)
    if not said:
        raise record.fault("there is nothing that the user says", "leave this record out")
    turns = (Turn(*pair) for pair in zip_longest(said[::2], said[1::2]))
    return chat.dialogue(record, tuple(turns))


def _in_turn(messages: Sequence[_Message], notes: list[str]) -> list[str]:
    """Texts of user and assistant in turn, the user first; what became of all other messages is noted."""
    for message in messages:
        if message.role in ("system", "tool"):
            notes.append(f"{message.role} messages left out")
        elif message.tool_calls:
            notes.append("tool calls left out")
    return in_turn([(message.role, message.content) for message in messages if message.content], notes)


def in_turn(spoken: Sequence[tuple[str, str]], notes: list[str]) -> list[str]:
    """Texts of user and assistant in turn, the user first, of who SPOKE what; what was left out or joined is noted."""
    opening = list(takewhile(lambda message: message[0] == "assistant", spoken))
    notes += ["openings by the assistant left out"] * len(opening)
    runs = [list(run) for _, run in groupby(spoken[len(opening) :], lambda message: message[0])]
    notes += ["messages of one speaker in a row joined"] * sum(len(run) - 1 for run in runs)
    return ["\n".join(text for _, text in run) for run in runs]


def instruction(record: Record) -> Dialogue:
    """The dialogue of one instruction: its history, then instruction and input as one message."""
    line = record.read(_Instruction)
    if line.system:
        record.notes.append("system messages left out")
    if line.input:
        record.notes.append("inputs joined to their instruction")
    asked = "\n".join(filter(None, (line.instruction, line.input)))
    turns = (*(Turn(user, reply) for user, reply in line.history), Turn(asked, line.output))
    return line.dialogue(record, turns)
