"""The dual critic: V_φ(h) and V_ξ(h, ω), eq. 13, and the state that only V_ξ sees.

Owns two linear heads on features, and the reading of H(h, ω), which stands apart from the policy: that must never be
given a profile (models/policy.py). Knows nothing of targets or advantages (rl/).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pamdp.models.actor import Whitening
from pamdp.models.policy import Policy
from pamdp.models.prefill import prefill
from pamdp.models.prefix import Prefix
from pamdp.prompts.render import render
from pamdp.types import TimeStep


class Critic(nn.Module):
    """v_m · tanh(H · B + b) on whitened features; v_m is the largest value of a state (rl.returns.max_value)."""

    def __init__(self, width: int, v_max: float) -> None:
        super().__init__()
        self.whiten = Whitening(width)
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.v_max = v_max

    def forward(self, features: Float[Tensor, "... width"]) -> Float[Tensor, "..."]:
        """Value of each state, where the critic is: features come to it."""
        features = features.to(self.head.weight.device)
        return torch.as_tensor(self.v_max * torch.tanh(self.head(self.whiten(features))[..., 0]))


class DualCritic(nn.Module):
    """V_φ(h) sees the history, V_ξ(h, ω) also sees the hidden profile; v_max is v_m of eq. 13."""

    def __init__(self, width_h: int, width_hw: int, v_max: float) -> None:
        super().__init__()
        self.v_h = Critic(width_h, v_max)
        self.v_hw = Critic(width_hw, v_max)


def privileged_prefixes(policy: Policy, moments: Sequence[TimeStep], before: Sequence[Prefix | None]) -> list[Prefix]:
    """What H(h, ω) of each moment is read from; for critics only, so no deeper than it is read.

    BEFORE is what this gave for an earlier turn of each dialogue, or None; it is left out where the profile changed.
    """
    systems = [render("assistant_for", persona=m.privileged.text) for m in moments]
    encoded = [
        policy.backbone.chat.history(policy.fitted(m.history, system), system)
        for m, system in zip(moments, systems, strict=True)
    ]
    earlier = [
        None if p is None or e.ids[: len(p.encoded.ids)] != p.encoded.ids else p
        for e, p in zip(encoded, before, strict=True)
    ]
    with policy.active():
        return prefill(policy.backbone, encoded, policy.readout.layer, earlier, shallow=True)
