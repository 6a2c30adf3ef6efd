"""Who talks to the assistant: a recorded or human user here, a simulated one in simulated.py, behind one protocol.

Owns how a dialogue goes on after a reply, and how users of one's own get a name. Knows nothing of rewards and policies.
The environment is the same for all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from pamdp.registry import USERS
from pamdp.types import Dialogue, History, Message, Persona


class User(Protocol):
    """The other side of a dialogue; it also knows who it is.

    A user that has to be waited for declares its three methods `async`. Whose part somebody plays that does not always
    find words for it may have a method `rejected(turn)`: why answers were no message of that turn.
    """

    key: str

    def start(self) -> History | Awaitable[History]:
        """h_0."""

    def answer(self, history: History, reply: str) -> History | Awaitable[History | None] | None:
        """h_{t+1} after REPLY to h_t, None where the dialogue is over; an AnswerError where no answer is usable."""

    def profile(self, history: History) -> Persona | Awaitable[Persona]:
        """ω_t, from h_t and what was true before it, never from later turns; an AnswerError where it is not had."""


class RecordedUser:
    """A user of a dataset: says what the record says, whatever the reply (offline states are the dataset's).

    INFERRED: give the profile as inferred up to the turn instead of the whole persona.
    """

    def __init__(self, dialogue: Dialogue, inferred: bool = False) -> None:
        self.dialogue, self.inferred = dialogue, inferred
        self.key = dialogue.id

    def start(self) -> History:
        """The recorded first message."""
        return self.dialogue.history(0)

    def answer(self, history: History, reply: str) -> History | None:
        """The record's next history along the chosen path; REPLY is judged, not remembered."""
        t = _turn(history) + 1
        return self.dialogue.history(t) if t < len(self.dialogue.turns) else None

    def profile(self, history: History) -> Persona:
        """The persona, or what the record says could be inferred by this turn (perhaps nothing yet).

        A record that says so of no turn has the persona.
        """
        if not self.inferred or not any(turn.inferred.text for turn in self.dialogue.turns):
            return self.dialogue.persona
        return self.dialogue.turns[_turn(history)].inferred


@dataclass
class HumanUser:
    """A person who is asked for every message; nothing is known of who they are.

    Attributes:
      ask: shows the assistant's reply (None at the start) and gives what the person says; nothing, or the end of the
        input (EOFError), ends the dialogue for good.
    """

    key: str
    ask: Callable[[str | None], str]

    def start(self) -> History:
        """The first message; EOFError where the person says nothing at all."""
        if not (said := self._said(None)):
            raise EOFError("nobody says anything")
        return (Message("user", said),)

    def answer(self, history: History, reply: str) -> History | None:
        """What the person says to REPLY."""
        said = self._said(reply)
        return (*history, Message("assistant", reply), Message("user", said)) if said else None

    def profile(self, history: History) -> Persona:
        """Nobody knows."""
        return Persona()

    def _said(self, reply: str | None) -> str:
        try:
            return self.ask(reply).strip()
        except EOFError:
            return ""


USERS.add("recorded", lambda dialogue, seed: RecordedUser(dialogue))


def _turn(history: History) -> int:
    return sum(message.role == "user" for message in history) - 1


def register_user(name: str) -> Callable[[Callable[[Dialogue, int], User]], Callable[[Dialogue, int], User]]:
    """The decorator of a user of one's own: `online.user=NAME` then plays it.

    It stands on a function (or a class) that makes the user of a record from the record and the seed of its draws.
    """
    return USERS(name)
