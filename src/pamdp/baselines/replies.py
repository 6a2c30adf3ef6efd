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
from pamdp.models.packed_branches import Branch, branch_log_probs
from pamdp.models.policy import Policy, path
from pamdp.train.rollout_recorded import rollout_recorded
from pamdp.types import Dialogue, Persona, Turn

Key = tuple[str, int]
"""Dialogue and 0-based turn: the history that is replied to."""

Replies = dict[Key, str]


class Replier(Protocol):
    """A trained method."""

    def write(self, dialogues: Sequence[Dialogue], progress: Callable[[int], None] | None = None) -> Replies:
        """One reply to every state along the chosen paths.

        A reply to h_t depends on h_t alone: not on later turns, nor on the other dialogues.

        Args:
          dialogues: veiled ones; see `veil`.
          progress: called with the number of replies just written.
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
        rollouts = rollout_recorded(self.policy, dialogues, self.config, progress=progress)
        return {(t.key, t.t): t.reply for rollout in rollouts for t in rollout.transitions}

    def reference_nll(self, dialogues: Sequence[Dialogue]) -> dict[Key, float]:
        """Nats per token of every preferred reply."""
        return {key: nll for dialogue in dialogues for key, nll in _nll(self.policy, dialogue).items()}


@torch.no_grad()
def _nll(policy: Policy, dialogue: Dialogue) -> dict[Key, float]:
    prefix, branches = policy.prefix(path(dialogue)), dict[Key, Branch]()
    for t, turn in enumerate(dialogue.turns):
        if turn.preferred:
            action = policy.mean_action(prefix, t)
            ids = policy.backbone.chat.reply(turn.preferred)
            branches[dialogue.id, t] = policy.branch(prefix, t, ids, action)
    if not branches:
        return {}
    with policy.backbone.adapter(policy.adapter):
        scored = branch_log_probs(policy.backbone, prefix, list(branches.values()), policy.readout.layer)
    return {key: -float(score.mean()) for key, score in zip(branches, scored, strict=True)}
