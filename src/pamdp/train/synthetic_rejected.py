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
from pamdp.types import Dialogue


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

    def whole(dialogue: Dialogue) -> Dialogue:
        turns = list(dialogue.turns)
        for t, turn in enumerate(turns):
            own = said.get((dialogue.id, t))
            # What is said word for word like the preferred reply is no contrast.
            if own is not None and turn.preferred and not turn.rejected and own != turn.preferred:
                turns[t] = replace(turn, rejected=own)
        return replace(dialogue, turns=tuple(turns))

    return tuple(whole(dialogue) for dialogue in dialogues)
