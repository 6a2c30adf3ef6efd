"""ALOE's layout: persona dialogues as JSON lines, and the pool of personas they were made from.

Owns ALOE's field names and habits (a reply may be a list, "None" means nothing is known yet). Knows nothing of files.
"""

from __future__ import annotations

from pamdp.data.fields import Fields, name_for
from pamdp.data.reading import Record, decode
from pamdp.types import Branch, Dialogue, Persona, Turn

BRANCHES: tuple[Branch, ...] = ("preferred", "rejected")
"""The two replies of a turn, as `chosen` names them."""


def detect(value: object) -> bool:
    """Whether a record is an ALOE dialogue."""
    return isinstance(value, dict) and "conversations" in value


def dialogue(record: Record) -> Dialogue:
    """The dialogue of one line.

    ALOE gives neither ids nor users, but talks with each profile many times: the user is the profile, so that a split
    by user never has one profile on both sides. `id` and `user_id` are taken where a line has them.

    Raises:
      DataError: a field is missing, empty or of the wrong type, or a turn has no reply on the path that was chosen.
    """
    fields = Fields.of(record)
    persona = Persona(_unquoted(fields, "profile"), _unquoted(fields, "personality"))
    items = fields.objects("conversations", "turn")
    turns = tuple(_turn(item) for item in items)
    require_replies(fields, turns)
    name = fields.loose("id") or record.name
    return Dialogue(name, fields.loose("user_id") or name_for(persona.profile or name), persona, turns)


def _turn(item: Fields) -> Turn:
    replies = item.inner("assistant")
    return Turn(
        user=item.text("user"),
        preferred=_reply(replies, "preferred"),
        rejected=_reply(replies, "rejected"),
        chosen=item.choice("chosen", BRANCHES, "preferred"),
        inferred=Persona(_known(item.loose("inferred_profile")), _known(item.loose("inferred_personality"))),
    )


def require_replies(fields: Fields, turns: tuple[Turn, ...]) -> None:
    """Refuse a dialogue that goes on after a turn without a reply: its histories could not be told.

    Raises:
      DataError: a turn before the last has no reply on the chosen path.
    """
    for number, turn in enumerate(turns[:-1], 1):
        if turn.reply is None:
            raise fields.fault(f"turn {number}: no {turn.chosen} reply, which the dialogue goes on with", "write it")


def _reply(replies: Fields, branch: Branch) -> str | None:
    """One reply; of a list the first that says something."""
    value = replies.values.get(branch)
    if not isinstance(value, list):
        return replies.optional(branch)
    for text in value:
        if not isinstance(text, str):
            raise replies.fault(f"`{branch}` is a list that holds something other than texts", "write one string")
        if text.strip():
            replies.record.notes.append("replies given as lists, the first text taken")
            return replies.usable(branch, text)
    raise replies.fault(f"`{branch}` is a list without a text", "write one string")


def _known(text: str) -> str:
    """An inferred text, where ALOE writes "None" for nothing."""
    return "" if text.rstrip(".").casefold() == "none" else text


def _unquoted(fields: Fields, name: str) -> str:
    """A persona text; ALOE's script copied whole lines of its pool, JSON quotation marks included.

    Raises:
      DataError: the copied line held two personas.
    """
    text = fields.loose(name)
    if not text.startswith('"'):
        return text
    try:
        value, end = decode(text)
    except ValueError:
        return text
    if end < len(text) and text[end] == '"':
        raise fields.fault(f"`{name}` holds two texts, so two persons", "keep one of them")
    return fields.usable(name, value) if end == len(text) else text


def is_text(value: object) -> bool:
    """Whether a record is a line of the persona pool."""
    return isinstance(value, str)


def persona_text(record: Record) -> str:
    """One text of the persona pool (profile.jsonl, personality.jsonl).

    Raises:
      DataError: the line is no usable text.
    """
    return Fields({"text": record.value}, record).text("text")
