"""How far a round of reinforcement may go: no further than replies stay as whole as the clone's.

Owns the measure (shares of garbled and blemished replies to some training states, by rule) and the step back. A judge
has blind spots, and a policy finds them; that replies break is the one fault that needs no judge to be seen. Knows
nothing of rewards.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from pamdp import ranks
from pamdp.config import RLConfig
from pamdp.learner import Learner
from pamdp.models.form import shares
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy
from pamdp.types import Dialogue

HALVINGS = 4
"""How often a step is halved before it is taken back whole."""


class TrustRegion:
    """Measures replies against those of the cloned POLICY, on CONFIG.form_states of the dialogues' states."""

    def __init__(self, policy: Policy, dialogues: Sequence[Dialogue], config: RLConfig, seed: int) -> None:
        states = [d.history(t) for d in dialogues for t in range(len(d.turns))]
        self.histories = random.Random(seed).sample(states, min(config.form_states, len(states)))
        self.policy, self.config = policy, config
        self.cloned = self._measure(policy) if self.histories else {}

    def hold(self, learner: Learner, before: dict[str, torch.Tensor]) -> dict[str, float]:
        """Halve what LEARNER moved beyond BEFORE until replies are as whole as the clone's, give or take the margin.

        Args:
          before: the state of `learner.delta` at the end of the last round.

        Returns:
          `garbled` and `blemished` of the policy that results, and `kept`, the part of the move that was; nothing where
          no state is measured.
        """
        if not self.histories:
            return {}
        moved = {name: value.clone() for name, value in learner.delta.state_dict().items()}
        for step in [0.5**n for n in range(HALVINGS + 1)] + [0.0]:
            part = {name: before[name] + step * (value - before[name]) for name, value in moved.items()}
            learner.delta.load_state_dict(part)
            found = self._measure(self.policy.with_actor(learner.actor()))
            if all(found[what] <= self.cloned[what] + self.config.form_margin for what in found):
                break
        return {**found, "kept": step}

    @torch.no_grad()
    def _measure(self, policy: Policy) -> dict[str, float]:
        sampling = Sampling(self.config.max_reply, trim=False)
        return shares(ranks.shared(self.histories, lambda own: policy.replies(own, sampling)))
