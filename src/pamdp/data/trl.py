"""TRL's conversational preference layout: {"prompt": [...], "chosen": [...], "rejected": [...]} and our extra columns.

Owns the way between such lines and dialogues or pairs. Knows nothing of TRL itself. The extra columns, all optional:
profile, personality, profile_t and personality_t (inferred up to the turn), turn, dialogue_id, user_id, and path (the
branch that the dialogue goes on with; TRL's own `chosen` means the preferred reply).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, get_args

from pydantic import Field, PlainValidator, ValidationInfo

from pamdp.data.fields import MESSAGES, ChatHistory, Loose, fault, name_for
from pamdp.data.jsonl import PairFields, write_lines
from pamdp.data.reading import Record
from pamdp.errors import DataError
from pamdp.files import Json
from pamdp.types import Branch, Dialogue, History, Persona, PreferencePair, Turn


def _one_reply(value: object, info: ValidationInfo) -> str:
    first, *more = MESSAGES.validate_python(value, context=info.context)
    if more or first.role != "assistant":
        raise fault("is not one assistant message", "keep what came before in `prompt`, and one assistant message here")
    return first.content


class _PairLine(PairFields):
    history: ChatHistory = Field(alias="prompt")
    preferred: Annotated[str, PlainValidator(_one_reply)] = Field(alias="chosen")
    rejected: Annotated[str, PlainValidator(_one_reply)]
    dialogue_id: Loose = ""

    @property
    def turn(self) -> int:
        return len(self.history) // 2


class _TurnLine(_PairLine):
    user_id: Loose = ""
    profile_t: Loose = ""
    personality_t: Loose = ""
    path: Branch | None = None


def pair(record: Record) -> PreferencePair:
    """The preference pair of one line."""
    line = record.read(_PairLine)
    return line.pair(f"{line.dialogue_id}/{line.turn}" if line.dialogue_id else record.name)


def dialogue(record: Record) -> Dialogue:
    """The dialogue of all lines with one dialogue_id, or of one line; the record's value is the list of their records.

    A turn of the prompt that no line labels keeps its reply as the preferred one. Without dialogue_id and user_id the
    user is the profile, or else the first message, so that a split by user never parts the lines of one dialogue. A
    DataError where a line is bad, or lines of one dialogue contradict each other.
    """
    assert isinstance(record.value, list)
    lines: list[tuple[Record, _TurnLine]] = [(item, item.read(_TurnLine)) for item in record.value]
    record.notes.extend(note for item, _ in lines for note in item.notes)
    where, last = max(lines, key=lambda pair: pair[1].turn)
    turns = [Turn(*_said(last.history, t)) for t in range(last.turn + 1)]
    latest = {line.turn: line for _, line in lines}
    for item, line in lines:
        if latest[line.turn] is not line:
            raise item.fault("two lines for one turn of one dialogue", "give each dialogue its own dialogue_id")
        if line.history != last.history[: len(line.history)]:
            raise item.fault("`prompt` is no beginning of this dialogue's longest prompt", "check dialogue_id")
        if line.persona != last.persona:
            raise item.fault("the profile differs from this dialogue's other lines", "check dialogue_id")
        turns[line.turn] = _turn(item, line, last.history)
    user = last.user_id or name_for(last.profile or last.history[0].content)
    return Dialogue(last.dialogue_id or last.id or where.name, user, last.persona, tuple(turns))


def _said(history: History, t: int) -> tuple[str, str | None]:
    """What the user said in a turn, and what the dialogue went on with if it did."""
    user, *reply = (message.content for message in history[2 * t : 2 * t + 2])
    return user, reply[0] if reply else None


def _turn(record: Record, line: _TurnLine, history: History) -> Turn:
    user, went_on = _said(history, line.turn)
    replies = {"preferred": line.preferred, "rejected": line.rejected}
    fitting = [branch for branch in get_args(Branch) if went_on in (None, replies[branch])]
    if not fitting or line.path not in (None, *fitting):
        raise record.fault("the dialogue goes on with neither reply of this line", "check prompt and path")
    inferred = Persona(line.profile_t, line.personality_t)
    return Turn(user, line.preferred, line.rejected, line.path or fitting[0], inferred)


def write_trl(path: str | Path, dialogues: Iterable[Dialogue]) -> int:
    """Write one line for each turn; returns how many. Read back, the same dialogues come out.

    A DataError where a turn lacks one of its replies, so that it is no preference, or the file cannot be written.
    """
    return write_lines(path, (line for dialogue in dialogues for line in _dialogue_lines(dialogue, Path(path))))


def _dialogue_lines(dialogue: Dialogue, path: Path) -> Iterator[Mapping[str, Json]]:
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
    """Write one line for each pair; otherwise like `write_trl`."""
    return write_lines(path, map(pair_line, pairs))


def pair_line(pair: PreferencePair) -> Mapping[str, Json]:
    """The line of one pair."""
    columns = _columns(pair.history, pair.preferred, pair.rejected, pair.persona)
    return {**columns, "id": pair.id, "kind": pair.kind, "twin": pair.twin}


def _columns(history: History, preferred: str, rejected: str, persona: Persona) -> Mapping[str, Json]:
    return {
        "prompt": [asdict(message) for message in history],
        "chosen": [{"role": "assistant", "content": preferred}],
        "rejected": [{"role": "assistant", "content": rejected}],
        **asdict(persona),
    }
