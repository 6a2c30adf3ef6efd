"""Transitions of rollouts, and the same as tensors: what the learner learns from.

Owns their order and which of them teach whom. Knows nothing of losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pamdp.rl.losses import gaussian_log_prob
from pamdp.types import TimeStep


@dataclass(frozen=True, slots=True)
class Transition:
    """One reply and what came of it.

    Attributes:
      key, t, k: dialogue, turn and sample.
      action: a, [d_a]; None where the policy has no planner.
      mean: mean of the action's distribution when it was drawn, [d_a].
      sigma: its standard deviation then; 0 where nothing was drawn: such a transition is for critics only.
      reward: r, or None: masked.
      next: (dialogue, turn) of h′, or None where the dialogue ended for good.
      truncated: the horizon T was hit: nobody replies to h′.
      score: ∇_a log p(u|h, a), [d_a], where it was asked for.
    """

    key: str
    t: int
    k: int
    reply: str
    action: Tensor | None
    mean: Tensor | None
    sigma: float
    reward: float | None
    next: tuple[str, int] | None
    truncated: bool = False
    score: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """Transitions, and the features of every state that they name; all tensors on the CPU, where a policy learns."""

    transitions: list[Transition]
    moments: dict[tuple[str, int], TimeStep]
    features_h: dict[tuple[str, int], Tensor]
    features_hw: dict[tuple[str, int], Tensor]
    dropped: dict[tuple[str, int], int] = field(default_factory=dict)
    """How many first turns did not fit into the backbone, of states whose history is read without them."""

    def answered(self, t: Transition) -> bool:
        """Whether a judge could say something of a reply: ω_t is known, and the user answered or the dialogue ended."""
        return self.moments[t.key, t.t].known and (t.next is None or not self.moments[t.next].stock)


@dataclass(frozen=True, slots=True)
class Batch:
    """Transitions as tensors; states are rows of feature tables, so that samples of one state share them.

    Attributes:
      h, hw: features of all states, [states, F].
      state, after: index of h and of h′ for each transition, [n]; after is -1 where the dialogue ended.
      action, mean: [n, d_a]; mean is that of the policy which drew the action.
      sigma: its σ, [n]; 0 where no action was drawn.
      reward: [n], 0 where masked.
      kept: [n], False where the transition is masked.
      score: ∇_a log p(u|h, a), [n, d_a], where replies teach the actor (0 of one without: it teaches the critics only);
        None where their actions do.
    """

    h: Tensor
    hw: Tensor
    state: Tensor
    after: Tensor
    action: Tensor
    mean: Tensor
    sigma: Tensor
    reward: Tensor
    kept: Tensor
    score: Tensor | None = None

    @property
    def acts(self) -> Tensor:
        """[n], whether a transition teaches the actor: it is not masked, and has a score or a drawn action."""
        return self.kept & (self.sigma > 0 if self.score is None else self.score.any(1))

    def pick(self, index: Tensor) -> Batch:
        """Some of the transitions, over the same states."""
        rows = (self.state, self.after, self.action, self.mean, self.sigma, self.reward, self.kept)
        score = None if self.score is None else self.score[index]
        return replace(Batch(self.h, self.hw, *(row[index] for row in rows)), score=score)

    def own(self) -> Batch:
        """The same transitions over no more states than they name."""
        named = torch.cat([self.state, self.after])
        used, number = torch.unique(named.clamp_min(0), return_inverse=True)
        state, after = number.split(len(self.state))
        after = torch.where(self.after < 0, -1, after)
        return replace(self, h=self.h[used], hw=self.hw[used], state=state, after=after)


def to_batch(rollouts: Sequence[Rollout], ends_at_horizon: bool = False) -> Batch:
    """Tensors of all transitions that have an action.

    Args:
      ends_at_horizon: a dialogue that was cut off at T has ended, as in the paper; otherwise it is bootstrapped.
    """
    index: dict[tuple[str, int], int] = {}
    h: list[Tensor] = []
    hw: list[Tensor] = []
    for rollout in rollouts:
        for name, features in rollout.features_h.items():
            if name not in index:
                index[name] = len(h)
                h.append(features)
                hw.append(rollout.features_hw[name])
    rows = [t for rollout in rollouts for t in rollout.transitions if t.action is not None]
    scored = any(t.score is not None for t in rows)
    scores = [torch.zeros_like(t.action) if t.score is None else t.score for t in rows if t.action is not None]
    return Batch(
        torch.stack(h),
        torch.stack(hw),
        torch.tensor([index[t.key, t.t] for t in rows]),
        torch.tensor([-1 if t.next is None or (ends_at_horizon and t.truncated) else index[t.next] for t in rows]),
        torch.stack([t.action for t in rows if t.action is not None]),
        torch.stack([t.mean for t in rows if t.mean is not None]),
        torch.tensor([t.sigma for t in rows]),
        torch.tensor([t.reward or 0.0 for t in rows]),
        torch.tensor([t.reward is not None for t in rows]),
        torch.stack(scores) if scored else None,
    )


def log_drawn(batch: Batch) -> Tensor:
    """Log density of every action under what it was drawn from, the bottom of the importance ratio, [n]; 0 undrawn."""
    out = torch.zeros_like(batch.reward)
    for sigma in {*batch.sigma.tolist()} - {0.0}:
        rows = batch.sigma == sigma
        out[rows] = gaussian_log_prob(batch.action[rows], batch.mean[rows], sigma)
    return out
