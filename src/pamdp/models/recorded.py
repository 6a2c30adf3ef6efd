"""A policy on recorded dialogues: its mean actions, its greedy replies, and how likely it finds the references.

Owns the one way to each of the three; whoever clones, reinforces or evaluates asks here. Knows nothing of judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from pamdp import ranks
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy, Request, path
from pamdp.types import Dialogue

Key = tuple[str, int]
"""Dialogue and 0-based turn: the state h_t along the chosen path."""
Replies = dict[Key, str]
Actions = Mapping[Key, Tensor]

BLOCK = 16
"""Dialogues whose prefixes are held at a time."""


@torch.no_grad()
def mean_actions(policy: Policy, dialogues: Sequence[Dialogue]) -> dict[Key, Tensor]:
    """E[a|h] of every state, [d_a] each; empty for a policy without a planner."""
    return {
        (dialogue.id, t): action
        for dialogue in dialogues
        for prefix in [policy.prefix(path(dialogue))]
        for t in range(len(dialogue.turns))
        if (action := policy.mean_action(prefix, t)) is not None
    }


def greedy_replies(
    policy: Policy,
    dialogues: Sequence[Dialogue],
    max_reply: int,
    actions: Actions | None = None,
    progress: Callable[[int], None] | None = None,
) -> Replies:
    """One reply of at most MAX_REPLY tokens to every state, under its own mean action or under ACTIONS.

    Of several processes, each writes those to its part of the dialogues.
    """

    def write(own: Sequence[Dialogue]) -> list[Replies]:
        out = list[Replies]()
        for start in range(0, len(own), BLOCK):
            block = own[start : start + BLOCK]
            with torch.no_grad():
                prefixes = policy.prefixes([path(d) for d in block], scored=False)
            keys = [(i, d.id, t) for i, d in enumerate(block) for t in range(len(d.turns))]
            requests = [
                Request(i, t, policy.mean_action(prefixes[i], t) if actions is None else actions[key, t])
                for i, key, t in keys
            ]
            replies = policy.write(prefixes, requests, Sampling(max_reply), progress=progress)
            written = {(key, t): reply for (_, key, t), reply in zip(keys, replies, strict=True)}
            out += [{(d.id, t): written[d.id, t] for t in range(len(d.turns))} for d in block]
        return out

    return {key: reply for part in ranks.shared(dialogues, write) for key, reply in part.items()}


def totals_of(found: Iterable[Sequence[Tensor]]) -> list[list[float]]:
    """The sum of each tensor, by one copy from their device; every group has as many."""
    sums = [[scores.sum() for scores in group] for group in found]
    totals: list[list[float]] = torch.stack([torch.stack(group) for group in sums]).tolist() if sums else []
    return totals


@torch.no_grad()
def reference_log_probs(policy: Policy, dialogue: Dialogue, *choices: Actions) -> dict[Key, list[Tensor]]:
    """Log p of the tokens of every preferred reply, the end of its turn included, under each choice of actions.

    Args:
      choices: actions by state; without any, the policy's own mean actions.

    Returns:
      For every state that has a preferred reply one tensor, [tokens], for each choice.
    """
    prefix = policy.prefix(path(dialogue))
    states = [t for t, turn in enumerate(dialogue.turns) if turn.preferred]
    branches = []
    for t in states:
        ids = policy.backbone.chat.reply(dialogue.turns[t].preferred or "")
        actions = [choice[dialogue.id, t] for choice in choices] if choices else [policy.mean_action(prefix, t)]
        branches += [policy.branch(prefix, t, ids, action) for action in actions]
    found = policy.log_probs(prefix, branches) if branches else []
    n = max(1, len(choices))
    return {(dialogue.id, t): found[i * n : (i + 1) * n] for i, t in enumerate(states)}
