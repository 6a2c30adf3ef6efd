"""Sample dialogues for people to read: what each method answered, and what the model made of its user.

Owns their records and file. Knows nothing of how replies were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from pamdp.files import write_json
from pamdp.stored import read_record
from pamdp.types import Persona


@dataclass(frozen=True, slots=True)
class SampleTurn:
    """One user message and the replies to it.

    Attributes:
      user: the message q_t.
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
