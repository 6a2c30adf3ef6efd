"""PrefEval's two layouts: persona-driven dialogues and four-option items (one JSON array for each topic).

Owns PrefEval's field names. Knows nothing of files. In the dialogues the assistant's replies are the good ones and
nothing is labelled as rejected; every item is a person of its own.
"""

from __future__ import annotations

from pamdp.data.fields import Fields
from pamdp.data.reading import Record
from pamdp.types import Dialogue, Message, Persona, PreferencePair, Turn

_OPTIONS = "classification_task_options"


def detect(value: object) -> bool:
    """Whether a record is a persona-driven item."""
    return isinstance(value, dict) and "preference" in value and isinstance(value.get("conversation"), dict)


def detect_options(value: object) -> bool:
    """Whether a record is a four-option item."""
    return isinstance(value, dict) and "preference" in value and _OPTIONS in value


def dialogue(record: Record) -> Dialogue:
    """The dialogue of one persona-driven item; its id holds topic and line, its persona's personality the preference.

    Raises:
      DataError: a field is missing or empty, or the turns are not numbered "0", "1", ... without a gap.
    """
    fields = Fields.of(record)
    talk = fields.inner("conversation")
    expected = [str(n) for n in range(len(talk.values))]
    if not expected or set(talk.values) != set(expected):
        raise talk.fault("the turns are not numbered 0, 1, 2, ...", "number them without a gap")
    turns = [talk.inner(n) for n in expected]
    name = record.name
    return Dialogue(
        id=name,
        user_id=name,
        persona=Persona(fields.text("persona"), fields.text("preference")),
        turns=tuple(Turn(turn.text("user"), preferred=turn.text("assistant")) for turn in turns),
    )


def pairs(record: Record) -> list[PreferencePair]:
    """Three pairs of one four-option item: the first option, which is right, against each of the others.

    The three share an item, so they are not independent; their ids differ after the last colon only.

    Raises:
      DataError: a field is missing, or there are fewer than two options.
    """
    fields = Fields.of(record)
    options = fields.values.get(_OPTIONS)
    if not isinstance(options, list) or len(options) < 2:
        raise fields.fault(f"`{_OPTIONS}` must be a list of two options or more, the right one first")
    right, *wrong = [fields.usable(f"option {n}", option) for n, option in enumerate(options, 1)]
    persona = Persona(personality=fields.text("preference"))
    history = (Message("user", fields.text("question")),)
    name = record.name
    return [
        PreferencePair(f"{name}:{n}", persona, history, right, option, kind="conflict")
        for n, option in enumerate(wrong, 1)
    ]
