"""Our own JSON lines: one dialogue or one preference pair a line, read and written without loss.

Owns these two layouts and the atomic writing of lines. Knows nothing of other data sets.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from pamdp.data.aloe import BRANCHES, require_replies
from pamdp.data.fields import Fields, history, name_for
from pamdp.data.reading import Record
from pamdp.errors import DataError
from pamdp.types import Dialogue, Persona, PreferencePair, Turn


def detect(value: object) -> bool:
    """Whether a record is one of our dialogues."""
    return isinstance(value, dict) and "turns" in value


def detect_pair(value: object) -> bool:
    """Whether a record is one of our preference pairs."""
    return isinstance(value, dict) and "history" in value and "preferred" in value


def dialogue(record: Record) -> Dialogue:
    """The dialogue of one line.

    Raises:
      DataError: a field is missing, empty or of the wrong type, or a turn has no reply on the path that was chosen.
    """
    fields = Fields.of(record)
    turns = tuple(_turn(item) for item in fields.objects("turns", "turn"))
    require_replies(fields, turns)
    name = fields.loose("id") or record.name
    found = persona(fields)
    return Dialogue(name, fields.loose("user_id") or name_for(found.profile or name), found, turns)


def persona(fields: Fields) -> Persona:
    """Profile and personality of an object; either may be missing.

    Raises:
      DataError: one of them is no usable text.
    """
    return Persona(fields.loose("profile"), fields.loose("personality"))


def _turn(item: Fields) -> Turn:
    return Turn(
        user=item.text("user"),
        preferred=item.optional("preferred"),
        rejected=item.optional("rejected"),
        chosen=item.choice("chosen", BRANCHES, "preferred"),
        inferred=persona(item.inner("inferred")) if item.values.get("inferred") is not None else Persona(),
    )


def pair(record: Record) -> PreferencePair:
    """The preference pair of one line.

    Raises:
      DataError: a field is missing, empty or of the wrong type, or the history's roles are wrong.
    """
    fields = Fields.of(record)
    return PreferencePair(
        id=fields.loose("id") or record.name,
        persona=persona(fields),
        history=history(fields, "history"),
        preferred=fields.text("preferred"),
        rejected=fields.text("rejected"),
        kind=fields.loose("kind"),
        twin=fields.optional("twin"),
    )


def write_dialogues(path: str | Path, dialogues: Iterable[Dialogue]) -> int:
    """Write dialogues as our own lines; returns how many. The file appears whole or not at all.

    Raises:
      DataError: a text cannot be written as UTF-8, or the file cannot be written.
    """
    return write_lines(path, (_dialogue_line(dialogue) for dialogue in dialogues))


def _dialogue_line(dialogue: Dialogue) -> Mapping[str, object]:
    turns = [
        {
            "user": turn.user,
            "preferred": turn.preferred,
            "rejected": turn.rejected,
            "chosen": turn.chosen,
            "inferred": {"profile": turn.inferred.profile, "personality": turn.inferred.personality},
        }
        for turn in dialogue.turns
    ]
    who = {"profile": dialogue.persona.profile, "personality": dialogue.persona.personality}
    return {"id": dialogue.id, "user_id": dialogue.user_id, **who, "turns": turns}


def write_pairs(path: str | Path, pairs: Iterable[PreferencePair]) -> int:
    """Write preference pairs as our own lines; returns how many. The file appears whole or not at all.

    Raises:
      DataError: a text cannot be written as UTF-8, or the file cannot be written.
    """
    return write_lines(path, (_pair_line(pair) for pair in pairs))


def _pair_line(pair: PreferencePair) -> Mapping[str, object]:
    return {
        "id": pair.id,
        "profile": pair.persona.profile,
        "personality": pair.persona.personality,
        "history": [{"role": message.role, "content": message.content} for message in pair.history],
        "preferred": pair.preferred,
        "rejected": pair.rejected,
        "kind": pair.kind,
        "twin": pair.twin,
    }


def write_lines(path: str | Path, values: Iterable[Mapping[str, object]]) -> int:
    """Write objects one a line in UTF-8; returns how many. The file appears whole or not at all.

    Raises:
      DataError: a text cannot be written as UTF-8, or the file cannot be written.
    """
    target, count = Path(path), 0
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as stream:
            for value in values:
                stream.write(json.dumps(value, ensure_ascii=False) + "\n")
                count += 1
        temporary.replace(target)
    except UnicodeEncodeError:
        raise DataError("a text holds half a character", target, count + 1, "mend the text") from None
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}", target) from error
    finally:
        temporary.unlink(missing_ok=True)
    return count
