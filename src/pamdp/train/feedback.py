"""`pamdp train offline` on rated replies: what users said of served ones, or blind readers of any, in place of a judge.

Owns the second source of transitions: rewards are the users', actions those that were served, each with the density
that it was drawn from, for the ratio; or, by `rl.gradient=reply`, how the replies' likelihood changes with the action.
Knows nothing of stores. The loop is that of reinforce.py, the learner the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pamdp import ranks
from pamdp.config import Config
from pamdp.data.rated import RatedDialogue, RatedReply
from pamdp.env.user import RecordedUser
from pamdp.errors import DataError
from pamdp.models.policy import Policy
from pamdp.models.prefix import Prefix
from pamdp.progress import Progress, note
from pamdp.rollout import add_features
from pamdp.runs import Run
from pamdp.train.action_space import action_space
from pamdp.train.reinforce import reinforce
from pamdp.transitions import Rollout, Transition
from pamdp.types import TimeStep

CLIP = 0.2
"""Range of the ratio where settings give none: without one, eq. 12 would take served actions for the actor's own."""


@dataclass(frozen=True, slots=True)
class Usable:
    """Rated replies that a policy can learn from, and what became of all: counts by a phrase that says it."""

    dialogues: tuple[RatedDialogue, ...]
    counts: Counter[str]


def with_clip(config: Config) -> Config:
    """CONFIG with a range for the ratio, where there is one."""
    if config.rl.clip is not None or config.rl.gradient == "reply":
        return config
    return config.model_copy(update={"rl": config.rl.model_copy(update={"clip": CLIP})})


def usable(policy: Policy, dialogues: Sequence[RatedDialogue], by_reply: bool = False) -> Usable:
    """What POLICY can learn from: actions of its own space, and whatever was not drawn (for the critics alone).

    BY_REPLY: replies teach by their likelihood, whoever wrote them, and under whichever action.
    """
    space, counts = action_space(policy), Counter[str]()
    d_a = policy.trained_planner.actor.a1.out_features

    def keeps(reply: RatedReply) -> bool:
        drawn, own = reply.sigma > 0, reply.space == space and len(reply.action or ()) == d_a
        if by_reply or (drawn and own):
            counts["teach actor and critics"] += 1
        elif drawn:
            counts["left out, since their actions are of another adapter or A2"] += 1
            return False
        else:
            counts["teach the critics only, since no action was drawn (rl.gradient=reply learns from them)"] += 1
        return True

    kept = (RatedDialogue(d.dialogue, tuple(filter(keeps, d.replies))) for d in dialogues)
    return Usable(tuple(d for d in kept if d.replies), counts)


@torch.no_grad()
def feedback_rollout(
    policy: Policy,
    dialogues: Sequence[RatedDialogue],
    inferred: bool = False,
    by_reply: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Rollout:
    """The rated replies as transitions, with H(h) and H(h, ω) of every turn of their dialogues.

    As with other recorded dialogues h′ is the record's next history, whichever reply it was; where the record ends, the
    user said no more, and the dialogue has ended.

    Args:
      by_reply: each reply with ∇_a log p(u|h, a) at the policy's mean action, whichever it was served under.
      progress: called with the number of dialogues just read.
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
            here = [(k, reply) for k, reply in enumerate(item.replies) if reply.t == t]
            drawn = (
                _by_likelihood(policy, prefixes[item.id], here) if by_reply else [_by_action(r, width) for _, r in here]
            )
            name = (item.id, t + 1) if t + 1 < turns else None
            for (k, reply), (action, mean, sigma, score) in zip(here, drawn, strict=True):
                out.transitions.append(
                    Transition(item.id, t, k, reply.text, action, mean, sigma, reply.reward, name, score=score)
                )
        if progress is not None:
            progress(1)
    return out


Drawn = tuple[Tensor, Tensor, float, Tensor | None]
"""Action, mean, σ and score of a transition."""


def _by_action(reply: RatedReply, width: int) -> Drawn:
    nothing = [0.0] * width
    action, mean = (reply.action or nothing, reply.mean or nothing) if reply.sigma > 0 else (nothing, nothing)
    return torch.tensor(action), torch.tensor(mean), reply.sigma, None


def _by_likelihood(policy: Policy, prefix: Prefix, replies: Sequence[tuple[int, RatedReply]]) -> list[Drawn]:
    mean = policy.mean_action(prefix)
    if mean is None or not replies:
        return []
    ids = [policy.backbone.chat.reply(reply.text) for _, reply in replies]
    scores = policy.scores(prefix, -1, ids, [mean] * len(ids)).cpu()
    mean = mean.cpu()
    return [(mean, mean, 0.0, score) for score in scores]


def learn(policy: Policy, dialogues: Sequence[RatedDialogue], config: Config, run: Run) -> Policy:
    """Improve a cloned POLICY on what users said; says what became of how many replies.

    Raises:
      DataError: no reply is left to learn from.
    """
    by_reply = config.rl.gradient == "reply"
    found = usable(policy, dialogues, by_reply)
    said = ", ".join(f"{count} {what}" for what, count in found.counts.items())
    if not found.dialogues:
        raise DataError(f"no rated reply is left to learn from: {said or 'none was rated'}", config.data.path)
    note(f"feedback: {said}")
    drawn: list[Rollout] = []

    def rollouts(policy: Policy, step: int) -> list[Rollout]:
        # Drawn actions stay what they were; where a likelihood rises changes with the policy, round by round.
        if by_reply or not drawn:
            with Progress(f"round {step + 1}/{config.rl.rounds}", len(found.dialogues), share=True) as bar:
                inferred = config.rl.profile == "inferred"
                drawn[:] = ranks.shared(
                    found.dialogues,
                    lambda own: [feedback_rollout(policy, [d], inferred, by_reply, bar.advance) for d in own],
                )
        return drawn

    users = [item.dialogue for item in found.dialogues]
    return reinforce(policy, users, rollouts, config.rl.rounds, config, run, "offline")
