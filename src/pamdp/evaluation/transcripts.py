"""Dialogues that were played in order to be evaluated: what was said, to whom, and what a judge may know.

Owns their records and file. Knows nothing of policies, users and judges at work.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from pydantic import AliasChoices, BeforeValidator, Field

from pamdp.errors import DataError
from pamdp.stored import read_records, write_records
from pamdp.types import Message, Persona, TimeStep


def _listed(*fields: str) -> BeforeValidator:
    """Reads a list as a record of some fields, which is how files held one at first."""
    return BeforeValidator(lambda x: dict(zip(fields, x, strict=True)) if isinstance(x, list) else x)


_Persona = Annotated[Persona, _listed("profile", "personality")]
_Message = Annotated[Message, _listed("role", "content")]


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
    """What belongs to one message of the user beside its words.

    Attributes:
      stock: the user had no usable answer, and the message stands in for it.
      rejected: why answers of whoever plays the user were not this message; a reason for each.
    """

    stock: bool = False
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """One dialogue of one method with one user.

    Attributes:
      persona: who the user is.
      messages: user, assistant, user, ...; one reply for each exchange, and the user's last answer.
      said: one for each message of the user; none at all where nobody played it.

    Raises:
      DataError: an exchange has no reply.
    """

    dialogue_id: Annotated[str, Field(validation_alias=AliasChoices("dialogue_id", "dialogue"))]
    user_id: Annotated[str, Field(validation_alias=AliasChoices("user_id", "user"))]
    persona: _Persona
    messages: tuple[_Message, ...]
    exchanges: tuple[Exchange, ...]
    said: tuple[MessageNote, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what could not be graded."""
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


write_talks = write_records
read_talks = partial(
    read_records, kind=Transcript, fix="run the same command without --render; delete a damaged file before"
)
"""A file of JSON lines."""
