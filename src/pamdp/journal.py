"""What was played of an unfinished round, turn by turn, so that a kill costs the turns in flight and nothing else.

Owns an append-only file of whole turns, each synced before anything is built on it. Knows nothing of who plays. A round
that is taken up again gets its stored turns from here: replies and outcomes are neither written nor asked for again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from pamdp.errors import RunError
from pamdp.files import Json, json_line, read_json_lines, write_atomic
from pamdp.types import Message, Outcome, Persona, Role, TimeStep


@dataclass(frozen=True, slots=True)
class PlayedTurn:
    """One turn of one dialogue and what came of it.

    Attributes:
      key, t: dialogue and turn.
      replies: the alternatives; the first one was said.
      actions, mean: the latent actions and the mean of their distribution, [d_a] each; None without a planner.
      outcomes: one for each alternative.
    """

    key: str
    t: int
    replies: tuple[str, ...]
    actions: tuple[list[float] | None, ...]
    mean: list[float] | None
    outcomes: tuple[Outcome, ...]


class Journal:
    """The turns of one round: `with Journal(path) as journal: ...`; what is there already is read first.

    Args:
      path: the file.
      before: called before anything is stored, such as to store first what it cost: what stands in the journal is not
        asked for again, so nothing would count it later.
    """

    def __init__(self, path: Path, before: Callable[[], None] | None = None) -> None:
        self.path, self.before = path, before
        self.openings: dict[str, TimeStep] = {}
        self.turns: dict[tuple[str, int], PlayedTurn] = {}
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Read what is stored and open the file for more.

        Raises:
          RunError: a record is not one of a journal, or a turn stands there twice.
        """
        records = read_json_lines(self.path)
        try:
            for record in records:
                self._take(record)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.path} is no journal ({error!r}); delete it to play its round anew") from error
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Without its torn last line: what is appended must start on a line of its own.
        write_atomic(self.path, "".join(json_line(record) for record in records))
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def open(self, moment: TimeStep) -> None:
        """Store the first moment of a dialogue."""
        self._append({"key": moment.key, "opening": _moment(moment)})
        self.openings[moment.key] = moment

    def add(self, played: PlayedTurn) -> None:
        """Store a turn.

        Raises:
          RunError: it is stored already; a turn never counts twice.
        """
        if (played.key, played.t) in self.turns:
            raise RunError(f"{self.path}: turn {played.t} of dialogue {played.key} would be stored twice")
        first = played.outcomes[0]
        self._append(
            {
                "key": played.key, "t": played.t, "replies": played.replies, "actions": played.actions,
                "mean": played.mean, "rewards": [o.reward for o in played.outcomes], "truncated": first.truncated,
                "next": None if first.next is None else _moment(first.next),
            }
        )  # fmt: skip
        self.turns[played.key, played.t] = played

    def delete(self) -> None:
        """The round is whole and stored elsewhere."""
        self.path.unlink(missing_ok=True)

    def _append(self, record: Mapping[str, Json]) -> None:
        assert self._file is not None
        if self.before is not None:
            self.before()
        self._file.write(json_line(record))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _take(self, record: Mapping[str, Json]) -> None:
        key = str(record["key"])
        if "opening" in record:
            self.openings[key] = _to_moment(key, record["opening"])
            return
        after = None if record["next"] is None else _to_moment(key, record["next"])
        rewards = cast("list[float | None]", record["rewards"])
        played = PlayedTurn(
            key,
            int(cast(int, record["t"])),
            tuple(map(str, _list(record["replies"]))),
            tuple(cast("list[list[float] | None]", _list(record["actions"]))),
            cast("list[float] | None", record["mean"]),
            tuple(Outcome(reward, after, bool(record["truncated"])) for reward in rewards),
        )
        if (played.key, played.t) in self.turns:
            raise ValueError(f"turn {played.t} of dialogue {key} stands there twice")
        self.turns[played.key, played.t] = played


def _moment(moment: TimeStep) -> dict[str, Json]:
    return {
        "t": moment.t,
        "history": [[m.role, m.content] for m in moment.history],
        "profile": moment.privileged.profile,
        "personality": moment.privileged.personality,
        "known": moment.known,
        "stock": moment.stock,
        "rejected": moment.rejected,
    }


def _to_moment(key: str, record: Json) -> TimeStep:
    if not isinstance(record, Mapping):
        raise TypeError("a moment is an object")
    history = tuple(Message(cast(Role, role), str(text)) for role, text in map(_list, _list(record["history"])))
    persona = Persona(str(record["profile"]), str(record["personality"]))
    rejected = tuple(map(str, _list(record["rejected"])))
    known, stock = bool(record["known"]), bool(record["stock"])
    return TimeStep(key, int(cast(int, record["t"])), history, persona, known, stock, rejected)


def _list(value: Json) -> Sequence[Json]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"a list was expected, not {value!r}")
    return value
