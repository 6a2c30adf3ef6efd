"""How many minutes a method takes on one thread of a CPU with the embedded backbone.

Owns the measured seconds and the arithmetic (docs/decisions.md says how they were measured). A step's cost grows with
what it reads and writes, so seconds are per state of the length measured, and other lengths are scaled to it. Nothing
is known of other backbones.
"""

from __future__ import annotations

from dataclasses import dataclass

from pamdp.baselines.method import Budget
from pamdp.models.embedded import EMBEDDED
from pamdp.train.setup import Split

CHARACTERS = 4.0
"""Characters of a token, about."""
MEASURED = (300.0, 32.0)
"""Tokens of a state's history, and most tokens of a reply, where the seconds were measured."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of one step on one thread.

    Attributes:
      example: learning from one reply of the data, once.
      draw: drawing one reply while learning, having it judged and learning from it.
      reply: one test reply.
    """

    example: float = 0.0
    draw: float = 0.0
    reply: float = 0.0


SECONDS: dict[str, Seconds] = {}
JUDGEMENT = 0.0
"""Seconds of one verdict of an embedded judge."""


def lengths_of(split: Split) -> float:
    """Mean tokens of the histories of all states, about."""
    lengths = []
    for dialogue in (*split.train, *split.test):
        said = 0
        for turn in dialogue.turns:
            said += len(turn.user)
            lengths.append(said)
            said += len(turn.reply or "")
    return sum(lengths) / max(len(lengths), 1) / CHARACTERS


def minutes_of(method: str, backbone: str, budget: Budget, replies: int, history: float) -> float | None:
    """Minutes of one training and its test replies; None where no cost was measured.

    Args:
      replies: test replies.
      history: mean tokens of a history.
    """
    if backbone != EMBEDDED or method not in SECONDS:
        return None
    cost = SECONDS[method]
    scale = (min(history, budget.context) + budget.reply) / sum(MEASURED)
    return scale * (cost.example * budget.examples + cost.draw * budget.draws + cost.reply * replies) / 60
