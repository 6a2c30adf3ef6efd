"""The dual critic: V_φ(h) and V_ξ(h, ω), eq. 13.

Owns two linear heads on features that somebody else computed. Knows nothing of targets or advantages (rl/).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pamdp.models.actor import Whitening


class Critic(nn.Module):
    """v_m · tanh(H · B + b) on whitened features.

    Args:
      width: size of the features.
      v_max: v_m, the largest value that a state can have (rl.returns.max_value).
    """

    def __init__(self, width: int, v_max: float) -> None:
        super().__init__()
        self.whiten = Whitening(width)
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.v_max = v_max

    def forward(self, features: Float[Tensor, "... width"]) -> Float[Tensor, "..."]:
        """Value of each state."""
        return torch.as_tensor(self.v_max * torch.tanh(self.head(self.whiten(features))[..., 0]))


class DualCritic(nn.Module):
    """V_φ(h) sees the history, V_ξ(h, ω) also sees the hidden profile.

    Args:
      width_h: size of H(h).
      width_hw: size of H(h, ω).
      v_max: v_m of eq. 13.
    """

    def __init__(self, width_h: int, width_hw: int, v_max: float) -> None:
        super().__init__()
        self.v_h = Critic(width_h, v_max)
        self.v_hw = Critic(width_hw, v_max)
