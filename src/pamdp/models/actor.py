"""The planner: A1 maps H(h) to a Gaussian over latent actions, A2 maps an action to input embeddings.

Owns eqs. 10 and 11 up to the injected embedding. Knows nothing of language models, rewards or users.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pamdp.errors import ShapeError


class Whitening(nn.Module):
    """Fixed standardisation of features: x -> (x - mean) / scale.

    A1 could absorb it; kept apart it keeps A1's gradients even.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, features: Float[Tensor, "n width"]) -> None:
        """Set mean and scale from training states; constant features get the scale of the median feature."""
        if features.ndim != 2 or features.shape[1] != len(self.mean) or len(features) < 2:
            raise ShapeError(f"whitening of width {len(self.mean)} cannot be fitted on {tuple(features.shape)}")
        std = features.std(0)
        self.mean.copy_(features.mean(0))
        self.scale.copy_(std.clamp_min(1e-3 * float(std.median()) + 1e-8))

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        """Standardised features."""
        return (x - self.mean) / self.scale


class Actor(nn.Module):
    """q_θ(a|h) = N(H(h)·A1, σ²I), eq. 10 with the density that eq. 12 needs.

    The paper gives a vector only; σ is fixed, set once relative to the RMS of the cloned action. The bias is the
    part of the action that does not depend on the state.
    """

    sigma: Tensor

    def __init__(self, width: int, d_a: int = 64) -> None:
        super().__init__()
        self.whiten = Whitening(width)
        self.a1 = nn.Linear(width, d_a)
        nn.init.normal_(self.a1.weight, std=width**-0.5)
        nn.init.zeros_(self.a1.bias)
        self.register_buffer("sigma", torch.tensor(1.0))

    def forward(self, features: Float[Tensor, "... width"]) -> Float[Tensor, "... d_a"]:
        """Mean action."""
        return torch.as_tensor(self.a1(self.whiten(features)))


class Injector(nn.Module):
    """A2: an action becomes n (1 in the paper) input embeddings of the backbone, each [d], eq. 11."""

    def __init__(self, d: int, d_a: int = 64, n: int = 1) -> None:
        super().__init__()
        self.n, self.d = n, d
        self.a2 = nn.Linear(d_a, n * d)
        nn.init.normal_(self.a2.weight, std=0.1 * d_a**-0.5)
        nn.init.zeros_(self.a2.bias)

    def forward(self, action: Float[Tensor, "... d_a"]) -> Float[Tensor, "... n d"]:
        """Embeddings to stand between the history and the reply."""
        return torch.as_tensor(self.a2(action)).reshape(*action.shape[:-1], self.n, self.d)


class Planner(nn.Module):
    """Actor and injector together: the part of a policy that is trained, copied and shipped.

    Args:
      width, d, d_a, n: as those of Actor and Injector; n = 0 for a planner that injects nothing.
      steers: the action also shifts the reply's hidden states; its directions are fitted while cloning.
    """

    injector: Injector | None
    steering: Tensor | None

    def __init__(self, width: int, d: int, d_a: int = 64, n: int = 1, steers: bool = False) -> None:
        super().__init__()
        self.actor = Actor(width, d_a)
        self.injector = Injector(d, d_a, n) if n else None
        self.register_buffer("steering", torch.zeros(d_a, d) if steers else None)

    def steer(self, action: Float[Tensor, "... d_a"]) -> Float[Tensor, "... d"] | None:
        """What is added to the hidden states of the reply, or None: a planner that does not steer."""
        return None if self.steering is None else action @ self.steering
