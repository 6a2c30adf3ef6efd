"""The nouns of the project: persona, message, turn, dialogue, preference pair.

Owns plain immutable records that every layer may hold. Knows nothing of files, models or tensors. Symbols are the
paper's: h is a History, w (omega) a Persona or an inferred one, u an assistant reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pamdp.errors import DataError

Role = Literal["system", "user", "assistant"]
Branch = Literal["preferred", "rejected"]


@dataclass(frozen=True, slots=True)
class Message:
    """One utterance with its speaker."""

    role: Role
    content: str


History = tuple[Message, ...]
"""h_t = (q_0, u_0, ..., q_t): starts and ends with a user message (paper, section 2)."""


def as_history(messages: str | Sequence[Message | Mapping[str, str]]) -> History:
    """A history from one user message, or from messages that take turns and end with the user's; else a DataError."""
    if isinstance(messages, str):
        messages = [Message("user", messages)]
    history: list[Message] = []
    for number, message in enumerate(messages):
        role, content = (
            (message.role, message.content)
            if isinstance(message, Message)
            else (message.get("role"), message.get("content"))
        )
        wanted: Role = "assistant" if number % 2 else "user"
        if role != wanted or not isinstance(content, str):
            raise DataError(f"message {number + 1} must be a text by the {wanted}, not {message!r}")
        history.append(Message(wanted, content))
    if not history or history[-1].role != "user" or not history[-1].content.strip():
        raise DataError("the last message must be the user's, and say something")
    return tuple(history)


@dataclass(frozen=True, slots=True)
class Persona:
    """Who the user is (profile) and how they talk (personality); the hidden variable w. Either may be empty."""

    profile: str = ""
    personality: str = ""

    @property
    def text(self) -> str:
        """Profile and personality as one paragraph."""
        return " ".join(part for part in (self.profile.strip(), self.personality.strip()) if part)


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange: the user's message q_t and what may be known about good and bad replies to it.

    `inferred` is the profile as far as it can be inferred from the user's turns up to this one (w_t), never later.
    `chosen` names the branch that the dialogue went on with.
    """

    user: str
    preferred: str | None = None
    rejected: str | None = None
    chosen: Branch = "preferred"
    inferred: Persona = field(default_factory=Persona)

    @property
    def reply(self) -> str | None:
        """The assistant's reply on the chosen path, if there is one."""
        return self.preferred if self.chosen == "preferred" else self.rejected


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A persona dialogue. `id` is unique in its source; `user_id` groups dialogues of one person for splits."""

    id: str
    user_id: str
    persona: Persona
    turns: tuple[Turn, ...]

    def history(self, t: int) -> History:
        """h_t along the chosen path: q_0, u_0, ..., q_t (0-based t).

        Raises:
          IndexError: t is not a turn, or an earlier turn has no reply on the chosen path.
        """
        messages: list[Message] = []
        for turn in self.turns[:t]:
            if turn.reply is None:
                raise IndexError(f"dialogue {self.id}: a turn before {t} has no reply")
            messages += [Message("user", turn.user), Message("assistant", turn.reply)]
        return (*messages, Message("user", self.turns[t].user))


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One history, two replies, and which of them this persona prefers."""

    id: str
    persona: Persona
    history: History
    preferred: str
    rejected: str
    kind: str = ""
    twin: str | None = None


@dataclass(frozen=True, slots=True)
class TimeStep:
    """What an environment says at one moment of one dialogue.

    Attributes:
      key: the dialogue's id in this environment.
      t: index of the user's message that waits for a reply.
      history: h_t; all that a policy may see.
      privileged: ω_t; for critics and judges only.
      known: whether ω_t could be had; where it could not, `privileged` is the last one that could, and what is replied
        here is masked.
      stock: whether the user had no usable answer, and the last message is one that stands in for it.
      rejected: why answers of whoever plays the user were not its last message; a reason for each.
    """

    key: str
    t: int
    history: History
    privileged: Persona
    known: bool = True
    stock: bool = False
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one reply.

    Attributes:
      reward: r_t, or None where no verdict could be had: the transition is masked and counted, never scored.
      next: the next moment, or None where the dialogue ended for good (its discount is 0).
      truncated: the horizon T was hit: values are bootstrapped from `next`, but nobody replies to it.
    """

    reward: float | None
    next: TimeStep | None
    truncated: bool = False
