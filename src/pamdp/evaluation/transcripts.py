"""Dialogues that were played in order to be evaluated (what was said, to whom, what a judge may know), or to be read.

Owns their records and files. Knows nothing of policies, users and judges at work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, BeforeValidator, Field

from pamdp.errors import DataError
from pamdp.files import write_json
from pamdp.stored import read_record
from pamdp.types import Message, Persona, TimeStep


def _from_list(*fields: str) -> BeforeValidator:
    """Reads a list as a record of some fields, which is how files held one at first."""
    return BeforeValidator(lambda x: dict(zip(fields, x, strict=True)) if isinstance(x, list) else x)


_Persona = Annotated[Persona, _from_list("profile", "personality")]
_Message = Annotated[Message, _from_list("role", "content")]


@dataclass(frozen=True, slots=True)
class Exchange:
    """What belongs to one reply beside its words.

    Attributes:
      profile: ω_t, for judges only.
      known: whether ω_t could be had and the user answered; otherwise the reply is masked.
      reference: u_g, or None where none could be had.
    """

    profile: _Persona
    known: bool = True
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class MessageNote:
    """Of one message of the user: whether it stands in for an answer, and why each rejected answer was not it."""

    stock: bool = False
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """One dialogue of one method with one user.

    Attributes:
      messages: user, assistant, user, ...; one reply for each exchange, and the user's last answer.
      said: one for each message of the user; none at all where nobody played it.
    """

    dialogue_id: Annotated[str, Field(validation_alias=AliasChoices("dialogue_id", "dialogue"))]
    user_id: Annotated[str, Field(validation_alias=AliasChoices("user_id", "user"))]
    persona: _Persona
    messages: tuple[_Message, ...]
    exchanges: tuple[Exchange, ...]
    said: tuple[MessageNote, ...] = ()

    def __post_init__(self) -> None:
        """Refuse, by a DataError, what could not be graded."""
        if len(self.messages) < 2 * len(self.exchanges):
            raise DataError("a turn has no reply")

    def history(self, t: int) -> tuple[Message, ...]:
        """h_t: all up to the user's message of turn T."""
        return self.messages[: 2 * t + 1]

    def reply(self, t: int) -> str:
        """u_t."""
        return self.messages[2 * t + 1].content

    def step(self, t: int) -> TimeStep:
        """The moment of turn T, as a judge sees it."""
        exchange = self.exchanges[t]
        return TimeStep(self.dialogue_id, t, self.history(t), exchange.profile, exchange.known)


@dataclass(frozen=True, slots=True)
class SampleTurn:
    """One user message q_t and the replies to it.

    Attributes:
      replies: method -> reply, in the order in which they are shown.
      inferred: the profile as inferred from the dialogue so far (w_t).
      rewards: method -> judge -> probability that its reply is preferred to the first method's.
    """

    user: str
    replies: dict[str, str]
    inferred: str = ""
    rewards: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SampleDialogue:
    """One user's dialogue; the persona is what the policy never saw."""

    user_id: str
    persona: Persona
    turns: tuple[SampleTurn, ...]


def write_dialogues(path: Path, dialogues: Sequence[SampleDialogue]) -> None:
    """Write a JSON list, atomically."""
    write_json(path, [asdict(d) for d in dialogues])


read_dialogues = partial(read_record, kind=tuple[SampleDialogue, ...])
"""What `write_dialogues` wrote."""
