"""TRL's conversational preference layout: {"prompt": [...], "chosen": [...], "rejected": [...]} and our extra columns.

Owns the way between such lines and dialogues or pairs. Knows nothing of TRL itself. The extra columns, all optional:
profile, personality, profile_t and personality_t (inferred up to the turn), turn, dialogue_id, user_id, and path (the
branch that the dialogue goes on with; TRL's own `chosen` means the preferred reply).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pamdp.data.aloe import BRANCHES
from pamdp.data.fields import Fields, history, name_for
from pamdp.data.jsonl import persona, write_lines
from pamdp.data.reading import Intake, Record, json_lines
from pamdp.errors import DataError
from pamdp.types import Dialogue, History, Message, Persona, PreferencePair, Turn


def detect(value: object) -> bool:
    """Whether a record is a line of this layout."""
    return isinstance(value, dict) and "chosen" in value and "rejected" in value and "conversations" not in value


def tells_dialogues(path: Path) -> bool:
    """Whether the first line that can be read names the dialogue it belongs to.

    Raises:
      DataError: the file cannot be read.
    """
    first = next(json_lines(path, Intake(skip_bad=True)), None)
    return first is not None and isinstance(first.value, dict) and "dialogue_id" in first.value


def pair(record: Record) -> PreferencePair:
    """The preference pair of one line.

    Raises:
      DataError: a field is missing, empty or of the wrong type, or roles are wrong.
    """
    fields = Fields.of(record)
    turns_before = history(fields, "prompt")
    dialogue_id = fields.loose("dialogue_id")
    spare = f"{dialogue_id}/{len(turns_before) // 2}" if dialogue_id else record.name
    preferred, rejected = _reply(fields, "chosen"), _reply(fields, "rejected")
    name, kind = fields.loose("id") or spare, fields.loose("kind")
    return PreferencePair(name, persona(fields), turns_before, preferred, rejected, kind, fields.optional("twin"))


def _reply(fields: Fields, name: str) -> str:
    items = fields.objects(name, f"`{name}` message")
    if len(items) > 1 or items[0].values.get("role") != "assistant":
        fix = "keep what came before in `prompt`, and one assistant message here"
        raise fields.fault(f"`{name}` is not one assistant message", fix)
    return items[0].text("content")


def grouped(path: Path, intake: Intake) -> Iterator[Record]:
    """The lines of one dialogue as one record: neighbours with the same dialogue_id; any other line stands alone.

    Raises:
      DataError: a line is not UTF-8 or not JSON and bad input is not skipped.
    """
    lines: list[Record] = []
    name: object = None
    for line in json_lines(path, intake):
        this = line.value.get("dialogue_id") if isinstance(line.value, dict) else None
        if lines and (this is None or this != name):
            yield Record(lines, path, lines[0].line, lines[0].place)
            lines = []
        lines.append(line)
        name = this
    if lines:
        yield Record(lines, path, lines[0].line, lines[0].place)


@dataclass(frozen=True, slots=True)
class _Line:
    """One line: the pair, its object, and what was inferred at its turn."""

    pair: PreferencePair
    fields: Fields

    @property
    def turn(self) -> int:
        return len(self.pair.history) // 2

    @property
    def inferred(self) -> Persona:
        return Persona(self.fields.loose("profile_t"), self.fields.loose("personality_t"))


def dialogue(record: Record) -> Dialogue:
    """The dialogue of one line, or of all lines with one dialogue_id.

    A turn of the prompt that no line labels keeps its reply as the preferred one. Without dialogue_id and user_id the
    user is the profile, or else the first message, so that a split by user never parts the lines of one dialogue.

    Raises:
      DataError: a line is bad, or the lines of one dialogue contradict each other.
    """
    records = record.value if isinstance(record.value, list) else [record]
    lines = [_Line(pair(item), Fields.of(item)) for item in records]
    record.notes.extend(note for item in records if item is not record for note in item.notes)
    last = max(lines, key=lambda line: line.turn)
    labelled = {line.turn: line for line in lines}
    for line in lines:
        _agree(line, last, alone=labelled[line.turn] is line)
    path = last.pair.history
    turns = tuple(_turn(t, path, labelled.get(t)) for t in range(last.turn + 1))
    name = last.fields.loose("dialogue_id") or last.pair.id
    user = last.fields.loose("user_id") or name_for(last.pair.persona.profile or path[0].content)
    return Dialogue(name, user, last.pair.persona, turns)


def _agree(line: _Line, last: _Line, alone: bool) -> None:
    if not alone:
        raise line.fields.fault("two lines for one turn of one dialogue", "give each dialogue its own dialogue_id")
    if line.pair.history != last.pair.history[: len(line.pair.history)]:
        raise line.fields.fault("`prompt` is no beginning of this dialogue's longest prompt", "check dialogue_id")
    if line.pair.persona != last.pair.persona:
        raise line.fields.fault("the profile differs from this dialogue's other lines", "check dialogue_id")


def _turn(t: int, path: History, line: _Line | None) -> Turn:
    user = path[2 * t].content
    went_on = path[2 * t + 1].content if 2 * t + 1 < len(path) else None
    if line is None:
        return Turn(user, preferred=went_on)
    replies = {"preferred": line.pair.preferred, "rejected": line.pair.rejected}
    guess = next((branch for branch in BRANCHES if went_on in (None, replies[branch])), None)
    chosen = line.fields.choice("path", BRANCHES, guess or "preferred")
    if guess is None or went_on not in (None, replies[chosen]):
        raise line.fields.fault("the dialogue goes on with neither reply of this line", "check prompt and path")
    return Turn(user, line.pair.preferred, line.pair.rejected, chosen, line.inferred)


def write_trl(path: str | Path, dialogues: Iterable[Dialogue]) -> int:
    """Write one line for each turn; returns how many. Read back, the same dialogues come out.

    Raises:
      DataError: a turn lacks one of its replies, so that it is no preference; or the file cannot be written.
    """
    return write_lines(path, (line for dialogue in dialogues for line in _dialogue_lines(dialogue, Path(path))))


def _dialogue_lines(dialogue: Dialogue, path: Path) -> Iterator[Mapping[str, object]]:
    for t, turn in enumerate(dialogue.turns):
        if turn.preferred is None or turn.rejected is None:
            what = f"dialogue {dialogue.id}, turn {t + 1} has no two replies to choose from"
            raise DataError(what, path, fix="write these dialogues as our own JSON lines")
        yield {
            **_columns(dialogue.history(t), turn.preferred, turn.rejected, dialogue.persona),
            "profile_t": turn.inferred.profile,
            "personality_t": turn.inferred.personality,
            "turn": t,
            "path": turn.chosen,
            "dialogue_id": dialogue.id,
            "user_id": dialogue.user_id,
        }


def write_trl_pairs(path: str | Path, pairs: Iterable[PreferencePair]) -> int:
    """Write one line for each pair; returns how many. Read back, the same pairs come out.

    Raises:
      DataError: the file cannot be written.
    """
    lines = (
        {**_columns(p.history, p.preferred, p.rejected, p.persona), "id": p.id, "kind": p.kind, "twin": p.twin}
        for p in pairs
    )
    return write_lines(path, lines)


def _columns(before: History, preferred: str, rejected: str, who: Persona) -> dict[str, object]:
    return {
        "prompt": [_message(message) for message in before],
        "chosen": [_message(Message("assistant", preferred))],
        "rejected": [_message(Message("assistant", rejected))],
        "profile": who.profile,
        "personality": who.personality,
    }


def _message(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}
