"""Replies that blind readers graded: what judges are fitted on and held against.

Owns the layout (a state, replies by letter, what each reader answered) and what several readers say together. Knows
nothing of sheets and keys (evaluation/readings.py), nor of judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pamdp.data.rated import RatedDialogue, RatedReply
from pamdp.data.reading import Record
from pamdp.errors import DataError
from pamdp.stored import read_records
from pamdp.types import Dialogue, Message, Persona, PreferencePair, Turn, as_history

_FIX = "a line is as `pamdp judge collect` writes it"
Kind = Literal["person", "model"]
Question = Literal["form", "sense"]
Grades = dict[str, dict[Question, Annotated[int, Field(ge=0, le=2)]]]
"""Letter -> question -> grade."""
Prefer = dict[str, str]
"""Pair of letters, `A-B` -> one of them, or `tie`."""


class Answers(BaseModel):
    """What one reader answered of a state; what was not answered is absent."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    reader: Annotated[str, Field(min_length=1)]
    kind: Kind
    grades: Grades = {}
    prefer: Prefer = {}


class ReadReply(BaseModel):
    """A reply, and who wrote it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str
    by: tuple[str, ...] = ()


class ReadPair(NamedTuple):
    """Two replies to a state, and the share of readers that prefer A, ties counting half."""

    a: str
    b: str
    share: float


class ReadState(BaseModel):
    """A state that was read: whom the assistant talks to, the last messages, the replies, and what readers said."""

    model_config = ConfigDict(extra="forbid")

    id: str
    user_id: str
    profile: str = ""
    personality: str = ""
    history: tuple[Message, ...]
    replies: dict[str, ReadReply]
    readings: tuple[Answers, ...]

    def model_post_init(self, _: object) -> None:
        """Refuse, by a DataError, what no sheet can have given."""
        as_history(self.history)
        for letter in (letter for reading in self.readings for letter in reading.grades):
            if letter not in self.replies:
                raise DataError(f"{letter!r} is graded, and there is no such reply")
        for pair, answer in (item for reading in self.readings for item in reading.prefer.items()):
            both = pair.split("-")
            if len({*both}) != 2 or len(both) != 2 or not {*both} <= {*self.replies}:
                raise DataError(f"{pair!r} is answered, and is no pair of the replies {', '.join(self.replies)}")
            if answer not in (*both, "tie"):
                raise DataError(f"{answer!r} is no answer to {pair}: one of the two letters, or tie")

    @property
    def persona(self) -> Persona:
        """Whom the assistant talks to."""
        return Persona(self.profile, self.personality)

    def pairs(self) -> list[ReadPair]:
        """Every pair that somebody answered, by letters."""
        said: dict[str, list[float]] = {}
        for reading in self.readings:
            for pair, answer in reading.prefer.items():
                said.setdefault(pair, []).append(0.5 if answer == "tie" else float(answer == pair.split("-")[0]))
        named = ((pair.split("-"), sum(own) / len(own)) for pair, own in said.items())
        return [ReadPair(a, b, share) for (a, b), share in named]

    def rewards(self) -> dict[str, float]:
        """Of each reply that was compared: how much oftener it was preferred than not, from -1 to 1, by letter."""
        said: dict[str, list[float]] = {}
        for a, b, share in self.pairs():
            said.setdefault(a, []).append(2 * share - 1)
            said.setdefault(b, []).append(1 - 2 * share)
        return {letter: sum(own) / len(own) for letter, own in said.items()}

    def rated(self) -> RatedDialogue:
        """The state as a dialogue that ends with it, its compared replies rated by the readers."""
        said = [message.content for message in self.history]
        turns = [Turn(user, reply) for user, reply in zip(said[::2], [*said[1::2], None], strict=True)]
        replies = tuple(
            RatedReply(len(turns) - 1, self.replies[letter].text, reward, ("read",), f"{self.id}:{letter}")
            for letter, reward in self.rewards().items()
        )
        return RatedDialogue(Dialogue(self.id, self.user_id, self.persona, tuple(turns)), replies)

    def grade(self, question: Question, letter: str) -> float | None:
        """The readers' mean grade of a reply."""
        given = [g[question] for r in self.readings if question in (g := r.grades.get(letter, {}))]
        return sum(given) / len(given) if given else None


def decided_pairs(states: Sequence[ReadState]) -> list[PreferencePair]:
    """The pairs that most readers decided, as labelled pairs; `kind` says whether one policy wrote both replies."""
    out = []
    for state in states:
        for a, b, share in state.pairs():
            if share != 0.5:
                good, bad = (a, b) if share > 0.5 else (b, a)
                one = {_policy(x) for x in state.replies[a].by} & {_policy(x) for x in state.replies[b].by}
                out.append(PreferencePair(
                    f"{state.id}:{a}-{b}", state.persona, state.history, state.replies[good].text,
                    state.replies[bad].text, "one policy" if one else "two policies",
                ))  # fmt: skip
    return out


def _policy(by: str) -> str:
    """Who wrote a reply, without how: `clone, drawn` is `clone`."""
    return by.split(",")[0]


def read_by(states: Sequence[ReadState]) -> str:
    """Who read; stands with every number that comes from readings."""
    kinds = {reading.reader: reading.kind for state in states for reading in state.readings}
    people, models = (sum(kind == what for kind in kinds.values()) for what in ("person", "model"))
    words = ((people, "person", "people"), (models, "language model", "language models"))
    parts = [f"{n} {one if n == 1 else many}" for n, one, many in words if n]
    return f"read blind by {' and '.join(parts) or 'nobody'}"


def read_state(record: Record) -> ReadState:
    """The state of one line."""
    try:
        return ReadState.model_validate(record.value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise record.fault(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", _FIX) from None
    except DataError as error:
        raise record.fault(error.what, _FIX) from None


def load_read_states(path: str | Path) -> list[ReadState]:
    """The states in a file of JSON lines; a DataError, with file and line, where one is something else."""
    return read_records(Path(path), ReadState, _FIX)
