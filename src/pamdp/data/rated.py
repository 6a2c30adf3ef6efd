"""Dialogues whose replies users rated: our own JSON lines, with what was said of each reply beside its turn.

Owns the column `rated` of a turn: each reply that was rated, its reward, how its action was drawn, and where that is
known from. Knows nothing of stores and of learning. Read as any other layout it is plain dialogues (data/jsonl.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pamdp.data.fields import Fields, Loose, Text
from pamdp.data.jsonl import as_line, dialogue, write_lines
from pamdp.data.reading import Record
from pamdp.files import Json
from pamdp.types import Dialogue

COLUMN = "rated"
_Numbers = Annotated[list[float], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class RatedReply:
    """A reply to turn `t` of a dialogue, and what users made of it.

    Attributes:
      text: the reply.
      reward: 1 for what was liked, -1 for what was not; their mean where several things were said of it.
      by: what was said: thumb, preferred, passed over, corrected, correction.
      id: of the served reply; of a correction, that of the reply it corrects.
      action, mean, sigma: how the action was drawn; None and 0 where none was.
      version, space: the policy version, and the hash of what gives its actions their meaning.
      created: seconds since 1970.
    """

    t: int
    text: str
    reward: float
    by: tuple[str, ...]
    id: str
    action: tuple[float, ...] | None = None
    mean: tuple[float, ...] | None = None
    sigma: float = 0.0
    version: str = ""
    space: str = ""
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class RatedDialogue:
    """A dialogue with the replies of it that were rated."""

    dialogue: Dialogue
    replies: tuple[RatedReply, ...]

    @property
    def id(self) -> str:
        """The dialogue's."""
        return self.dialogue.id


class _Rated(Fields):
    text: Text
    reward: Annotated[float, Field(ge=-1, le=1)]
    by: list[Text] = Field(default=[])
    id: Loose = ""
    action: _Numbers | None = None
    mean: _Numbers | None = None
    sigma: Annotated[float, Field(ge=0)] = 0.0
    version: Loose = ""
    space: Loose = ""
    created: float = 0.0

    def reply(self, t: int) -> RatedReply:
        lists = {"by": self.by, "action": self.action, "mean": self.mean}
        tuples = {name: None if value is None else tuple(value) for name, value in lists.items()}
        return RatedReply(t, **{**self.model_dump(), **tuples})


class _Turn(Fields):
    rated: list[_Rated] = Field(default=[])


class _Line(Fields):
    turns: list[_Turn]


def detect(record: dict[str, object]) -> bool:
    """Whether a record is such a dialogue."""
    turns = record.get("turns")
    return isinstance(turns, list) and any(isinstance(turn, dict) and COLUMN in turn for turn in turns)


def rated(record: Record) -> RatedDialogue:
    """The rated dialogue of one line; a DataError where a drawn action lacks its mean, or has another length."""
    replies = tuple(r.reply(t) for t, turn in enumerate(record.read(_Line).turns) for r in turn.rated)
    for reply in replies:
        if reply.sigma > 0 and (not reply.action or not reply.mean or len(reply.action) != len(reply.mean)):
            what = f"turn {reply.t + 1}: a reply with a sigma lacks its action or mean, or their lengths differ"
            raise record.fault(what, "export the feedback anew")
    return RatedDialogue(dialogue(record), replies)


def write_rated(path: str | Path, dialogues: Iterable[RatedDialogue]) -> int:
    """Write one line for each; as `write_dialogues`."""
    return write_lines(path, map(_as_line, dialogues))


def _as_line(item: RatedDialogue) -> dict[str, Json]:
    line = as_line(item.dialogue)
    replies: list[list[Json]] = [[] for _ in item.dialogue.turns]
    for reply in item.replies:
        replies[reply.t].append({name: x for name, x in asdict(reply).items() if name != "t"})
    turns = [{**asdict(turn), COLUMN: own} for turn, own in zip(item.dialogue.turns, replies, strict=True)]
    return {**line, "turns": turns}
