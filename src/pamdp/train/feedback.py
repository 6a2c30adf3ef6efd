"""`pamdp train offline` on an export of feedback: what users said of served replies, in place of a judge.

Owns the second source of transitions: rewards are the users', actions those that were served, each with the density
that it was drawn from, for the ratio. Knows nothing of stores. The loop is that of reinforce.py, the learner the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pamdp.config import Config
from pamdp.data.rated import RatedDialogue, RatedReply
from pamdp.env.user import RecordedUser
from pamdp.errors import DataError
from pamdp.models.backbone import Prefix
from pamdp.models.policy import Policy
from pamdp.progress import note
from pamdp.rollout import Rollout, Transition, add_features
from pamdp.runs import Run
from pamdp.train.action_space import action_space
from pamdp.train.reinforce import reinforce
from pamdp.types import TimeStep

CLIP = 0.2
"""Range of the ratio where settings give none: without one, eq. 12 would take served actions for the actor's own."""


@dataclass(frozen=True, slots=True)
class Usable:
    """Rated replies that a policy can learn from, and what became of all: counts by a phrase that says it."""

    dialogues: tuple[RatedDialogue, ...]
    counts: Counter[str]


def with_clip(config: Config) -> Config:
    """CONFIG with a range for the ratio."""
    if config.rl.clip is not None:
        return config
    return config.model_copy(update={"rl": config.rl.model_copy(update={"clip": CLIP})})


def usable(policy: Policy, dialogues: Sequence[RatedDialogue]) -> Usable:
    """What POLICY can learn from: actions of its own space, and whatever was not drawn (for the critics alone)."""
    space, counts = action_space(policy), Counter[str]()
    d_a = policy.trained_planner.actor.a1.out_features

    def keeps(reply: RatedReply) -> bool:
        drawn = reply.sigma > 0
        fits = not drawn or (reply.space == space and len(reply.action or ()) == d_a)
        counts["teach actor and critics" if drawn and fits else "teach the critics only, since no action was drawn"
               if fits else "left out, since their actions are of another adapter or A2"] += 1  # fmt: skip
        return fits

    kept = (RatedDialogue(d.dialogue, tuple(filter(keeps, d.replies))) for d in dialogues)
    return Usable(tuple(d for d in kept if d.replies), counts)


@torch.no_grad()
def feedback_rollout(policy: Policy, dialogues: Sequence[RatedDialogue], inferred: bool = False) -> Rollout:
    """The rated replies as transitions, with H(h) and H(h, ω) of every turn of their dialogues.

    As with other recorded dialogues h′ is the record's next history, whichever reply it was; where the record ends, the
    user said no more, and the dialogue has ended.
    """
    out, width = Rollout([], {}, {}, {}), policy.trained_planner.actor.a1.out_features
    privileged: dict[tuple[str, int], Tensor] = {}
    for item in dialogues:
        user, turns = RecordedUser(item.dialogue, inferred), len(item.dialogue.turns)
        prefixes, seen = dict[str, Prefix](), dict[str, Prefix]()
        for t in range(turns):
            history = item.dialogue.history(t)
            moment = TimeStep(item.id, t, history, user.profile(history))
            add_features(policy, [moment], prefixes, seen, privileged, out)
        for k, reply in enumerate(item.replies):
            name = (item.id, reply.t + 1) if reply.t + 1 < turns else None
            action = torch.tensor(reply.action if reply.sigma > 0 and reply.action else [0.0] * width)
            mean = torch.tensor(reply.mean if reply.sigma > 0 and reply.mean else [0.0] * width)
            out.transitions.append(
                Transition(item.id, reply.t, k, reply.text, action, mean, reply.sigma, reply.reward, name)
            )
    return out


def learn(policy: Policy, dialogues: Sequence[RatedDialogue], config: Config, run: Run) -> Policy:
    """Improve a cloned POLICY on what users said; says what became of how many replies.

    Raises:
      DataError: no reply is left to learn from.
    """
    found = usable(policy, dialogues)
    said = ", ".join(f"{count} {what}" for what, count in found.counts.items())
    if not found.dialogues:
        raise DataError(f"no rated reply is left to learn from: {said or 'none was rated'}", config.data.path)
    note(f"feedback: {said}")
    rollout = feedback_rollout(policy, found.dialogues, config.rl.profile == "inferred")
    users = [item.dialogue for item in found.dialogues]
    return reinforce(policy, users, lambda _, step: [rollout], config.rl.rounds, config, run, "offline")
