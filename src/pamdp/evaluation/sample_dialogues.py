"""Sample dialogues for people to read: what each method answered, and what the model made of its user.

Owns their records and file. Knows nothing of how replies were made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pamdp.errors import DataError
from pamdp.evaluation.records import brief, read_utf8
from pamdp.files import write_atomic
from pamdp.types import Persona


@dataclass(frozen=True, slots=True)
class SampleTurn:
    """One user message and the replies to it.

    Attributes:
      user: the message q_t.
      replies: method -> reply, in the order in which they are shown.
      inferred: the profile as inferred from the dialogue so far (w_t).
      value_h: V_φ(h), if a critic was asked.
      value_hw: V_ξ(h, ω).
      action_norm: length of the latent action.
      rewards: method -> judge -> probability that its reply is preferred to the first method's.
    """

    user: str
    replies: dict[str, str]
    inferred: str = ""
    value_h: float | None = None
    value_hw: float | None = None
    action_norm: float | None = None
    rewards: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SampleDialogue:
    """One user's dialogue; the persona is what the policy never saw."""

    user_id: str
    persona: Persona
    turns: tuple[SampleTurn, ...]


def write_dialogues(path: Path, dialogues: Sequence[SampleDialogue]) -> None:
    """Write a JSON list, atomically."""
    text = json.dumps([asdict(d) for d in dialogues], ensure_ascii=False, indent=2, allow_nan=False)
    write_atomic(path, text + "\n")


def read_dialogues(path: Path) -> tuple[SampleDialogue, ...]:
    """Read what `write_dialogues` wrote.

    Raises:
      DataError: not such a file; the message names the field.
    """
    try:
        return TypeAdapter(tuple[SampleDialogue, ...]).validate_json(read_utf8(path), strict=True)
    except ValidationError as error:
        raise DataError(f"not a file of sample dialogues: {brief(error)}", path) from error
