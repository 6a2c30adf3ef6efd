"""The action posterior p(a|h,u): what an action would have to be to mean this reply.

Owns the encoder that cloning uses so that actions carry something: under plain cross-entropy nothing rewards a for
carrying what the backbone can read in h by itself (docs/decisions.md). Reinforcement learning and serving never see it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pamdp.models.actor import Whitening


class Posterior(nn.Module):
    """Action of unit RMS from a reply's whitened features: m = √d_a · E z / |E z|.

    The fixed scale gives the cloning noise a fixed signal-to-noise ratio, so the encoder cannot escape it by growing.

    Args:
      width: size of a reply's features.
      d_a: action dimension.
    """

    def __init__(self, width: int, d_a: int = 64) -> None:
        super().__init__()
        self.whiten = Whitening(width)
        self.encode = nn.Linear(width, d_a)
        nn.init.normal_(self.encode.weight, std=width**-0.5)
        nn.init.zeros_(self.encode.bias)

    def forward(self, features: Float[Tensor, "... width"]) -> Float[Tensor, "... d_a"]:
        """Posterior mean of the action."""
        m = self.encode(self.whiten(features))
        return torch.as_tensor(m * (m.square().mean(-1, keepdim=True) + 1e-6).rsqrt())
