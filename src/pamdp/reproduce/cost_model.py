"""How many minutes a method takes on one thread of a CPU with the embedded backbone.

Owns the seconds of one step and the arithmetic (docs/decisions.md says where they come from). A step's cost grows with
what it reads and writes, so seconds are those of a state of the sample, and other lengths are scaled to it. Nothing is
known of other backbones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pamdp.baselines.method import Budget
from pamdp.models.embedded import EMBEDDED
from pamdp.types import Dialogue

CHARACTERS = 4.0
"""Characters of a token, about."""
STATE = 205.0 + 32.0
"""Tokens of the sample's mean history and of a reply: the state that the seconds are of."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of one step on one thread.

    Attributes:
      example: learning from one reply of the data, once.
      draw: drawing one reply while learning, having it judged and learning from it.
      reply: one test reply, and its reference's likelihood where the method has one.
    """

    example: float = 0.0
    draw: float = 0.0
    reply: float = 1.2


_REINFORCED = Seconds(draw=1.6)
SECONDS = {
    "Vanilla": Seconds(),
    "Prompt": Seconds(),
    "PEFT": Seconds(example=5.1, reply=6.5),
    "FPFT": Seconds(example=4.5),
    "CoT": Seconds(example=5.1, reply=1.1),
    "BC": Seconds(example=2.0),
    # Examples of what is reinforced are those of BC, whose cloned policy it shares.
    **dict.fromkeys(("RL-base", "UAAC", "DCRL", "PAMDP", "ODC"), _REINFORCED),
    "DPO": Seconds(example=4.5),
    "GRPO": Seconds(draw=4.5),
}
VERDICT = 0.35
"""Of one verdict of an embedded judge, in one order."""


def histories(dialogues: Sequence[Dialogue], limit: int) -> list[float]:
    """Tokens, about, of the history of every turn; a dialogue ends where its history would outgrow LIMIT tokens."""
    found = []
    for dialogue in dialogues:
        said = 0.0
        for turn in dialogue.turns:
            said += len(turn.user) / CHARACTERS
            if said > limit:
                break
            found.append(said)
            said += len(turn.reply or "") / CHARACTERS
    return found


def minutes_of(
    method: str, backbone: str, budget: Budget, replies: int, judgements: int, history: float
) -> float | None:
    """Minutes of one training, its test replies and their verdicts; None where nothing is known of the cost.

    Args:
      replies, judgements: test replies, and questions to embedded judges about them.
      history: mean tokens of a history.
    """
    if backbone != EMBEDDED or method not in SECONDS:
        return None
    cost = SECONDS[method]
    scale = (history + budget.reply) / STATE
    spent = cost.example * budget.examples + cost.draw * budget.draws + cost.reply * replies
    return scale * (spent + VERDICT * judgements) / 60
