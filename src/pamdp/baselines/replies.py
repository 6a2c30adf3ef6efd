"""What every method yields: an object that replies to histories.

Owns the protocol, the veil between a method and what it must not see of a user, and the adapter of a `Policy`. Knows
nothing of how a method learns, nor of who grades its replies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from pamdp.config import RLConfig
from pamdp.models.policy import Policy
from pamdp.models.recorded import Key, Replies, greedy_replies, reference_log_probs
from pamdp.types import Dialogue, Persona, Turn


class Replier(Protocol):
    """A trained method."""

    def write(self, dialogues: Sequence[Dialogue], progress: Callable[[int], None] | None = None) -> Replies:
        """One reply to every state along the chosen paths.

        A reply to h_t depends on h_t alone: not on later turns, nor on the other dialogues, which are all veiled (see
        `veil`). PROGRESS is told how many replies were just written.
        """
        ...


@runtime_checkable
class Scores(Protocol):
    """A method that can also say how likely a given reply is."""

    def reference_nll(self, dialogues: Sequence[Dialogue]) -> dict[Key, float]:
        """Nats per token of every preferred reply, the end of the turn included."""
        ...


def veil(dialogue: Dialogue) -> Dialogue:
    """The dialogue as a method that replies may see it: what was said along the chosen path, and nothing else.

    Persona, user id, inferred profiles and the replies that were not said stay behind; so does the last turn's reply,
    which belongs to no history.
    """
    last = len(dialogue.turns) - 1
    turns = (Turn(turn.user, preferred=turn.reply if t < last else None) for t, turn in enumerate(dialogue.turns))
    return Dialogue(dialogue.id, "", Persona(), tuple(turns))


@dataclass(frozen=True, slots=True)
class PolicyReplier:
    """A `Policy` as a replier: greedy, under the mean action where it has a planner."""

    policy: Policy
    config: RLConfig

    def write(self, dialogues: Sequence[Dialogue], progress: Callable[[int], None] | None = None) -> Replies:
        """One reply to every state."""
        return greedy_replies(self.policy, dialogues, self.config.max_reply, progress=progress)

    def reference_nll(self, dialogues: Sequence[Dialogue]) -> dict[Key, float]:
        """Nats per token of every preferred reply."""
        found = {k: own for d in dialogues for k, (own,) in reference_log_probs(self.policy, d).items()}
        means = torch.stack([own.mean() for own in found.values()]).tolist() if found else []
        return {key: -mean for key, mean in zip(found, means, strict=True)}
