"""Dialogues that were played in order to be evaluated: what was said, to whom, and what a judge may know.

Owns their records and file. Knows nothing of policies, users and judges at work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pamdp.errors import RunError
from pamdp.files import Json, json_line, read_json_lines, write_atomic
from pamdp.types import History, Message, Persona, Role, TimeStep


@dataclass(frozen=True, slots=True)
class Exchange:
    """What belongs to one reply beside its words.

    Attributes:
      profile: ω_t, for judges only.
      known: whether ω_t could be had and the user answered; otherwise the reply is masked.
      reference: u_g, or None where none could be had.
    """

    profile: Persona
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
    """

    dialogue_id: str
    user_id: str
    persona: Persona
    messages: History
    exchanges: tuple[Exchange, ...]
    said: tuple[MessageNote, ...] = ()

    def history(self, t: int) -> History:
        """h_t: all up to the user's message of turn T."""
        return self.messages[: 2 * t + 1]

    def reply(self, t: int) -> str:
        """u_t."""
        return self.messages[2 * t + 1].content

    def step(self, t: int) -> TimeStep:
        """The moment of turn T, as a judge sees it."""
        exchange = self.exchanges[t]
        return TimeStep(self.dialogue_id, t, self.history(t), exchange.profile, exchange.known)


def write_talks(path: Path, talks: Iterable[Transcript]) -> None:
    """Store dialogues, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(json_line(_record(talk)) for talk in talks))


def read_talks(path: Path) -> list[Transcript]:
    """What `write_talks` wrote.

    Raises:
      RunError: the file is missing or damaged.
    """
    if not path.is_file():
        raise RunError(f"no dialogues in {path}; run the same command without --render")
    try:
        return [_talk(record) for record in read_json_lines(path)]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} holds no dialogues ({error!r}); delete it to have them played again") from error


def _record(talk: Transcript) -> dict[str, Json]:
    return {
        "dialogue": talk.dialogue_id, "user": talk.user_id, "persona": _persona(talk.persona),
        "messages": [[m.role, m.content] for m in talk.messages],
        "exchanges": [
            {"profile": _persona(e.profile), "known": e.known, "reference": e.reference} for e in talk.exchanges
        ],
        "said": [{"stock": s.stock, "rejected": s.rejected} for s in talk.said],
    }  # fmt: skip


def _talk(record: Mapping[str, Json]) -> Transcript:
    messages = tuple(Message(cast(Role, role), str(text)) for role, text in cast("list[list[str]]", record["messages"]))
    exchanges = tuple(
        Exchange(_to_persona(e["profile"]), bool(e["known"]), cast("str | None", e["reference"]))
        for e in cast("list[dict[str, Json]]", record["exchanges"])
    )
    said = tuple(
        MessageNote(bool(s["stock"]), tuple(map(str, cast("list[str]", s["rejected"]))))
        for s in cast("list[dict[str, Json]]", record["said"])
    )
    if len(messages) < 2 * len(exchanges):
        raise ValueError("a turn has no reply")
    persona = _to_persona(record["persona"])
    return Transcript(str(record["dialogue"]), str(record["user"]), persona, messages, exchanges, said)


def _persona(persona: Persona) -> Sequence[Json]:
    return [persona.profile, persona.personality]


def _to_persona(value: Json) -> Persona:
    profile, personality = cast("list[str]", value)
    return Persona(profile, personality)
