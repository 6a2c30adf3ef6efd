"""What stands in for a rejected reply where the data have none: what the bare backbone says to the same history.

Owns that choice. Steering needs two replies to one history (train/steering.py), and PrefEval labels no bad one. The
preferred reply is then contrasted with the model's own, as self-play fine-tuning does (Chen et al. 2024); an action
points from how the model talks by itself to how it should talk to this person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pamdp.models.policy import Policy
from pamdp.models.recorded import greedy_replies
from pamdp.progress import Progress
from pamdp.types import Dialogue, Turn


def with_synthetic_rejected(policy: Policy, dialogues: Sequence[Dialogue], max_reply: int) -> tuple[Dialogue, ...]:
    """The dialogues with a rejected reply at every turn that has a preferred one.

    A reply that the data reject stays. Histories do not change: a turn whose rejected reply was chosen had one.

    Args:
      policy: gives the backbone and its instruction; its planner and adapter are left aside.
      max_reply: longest reply, in tokens.
    """
    lacking = [d for d in dialogues if any(turn.preferred and not turn.rejected for turn in d.turns)]
    if not lacking:
        return tuple(dialogues)
    bare = replace(policy, planner=None, adapter=None)
    with Progress("stand-ins", sum(len(d.turns) for d in lacking)) as bar:
        said = greedy_replies(bare, lacking, max_reply, progress=bar.advance)

    def contrasted(turn: Turn, own: str | None) -> Turn:
        # What is said word for word like the preferred reply is no contrast.
        lacks = turn.preferred and not turn.rejected and own != turn.preferred
        return replace(turn, rejected=own) if lacks else turn

    turns = [tuple(contrasted(turn, said.get((d.id, t))) for t, turn in enumerate(d.turns)) for d in dialogues]
    return tuple(replace(d, turns=own) for d, own in zip(dialogues, turns, strict=True))
