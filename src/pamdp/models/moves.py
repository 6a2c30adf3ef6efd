"""How an actor moves while it is reinforced: from where it was cloned, along few directions of H(h).

Owns those directions and the step along them. A1 has tens of thousands of numbers; a few thousand rewards fit them to
the users at hand and to nobody else (docs/decisions.md). Knows nothing of rewards.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pamdp.models.actor import Actor


class Moves(nn.Module):
    """μ_θ(h) = μ_b(h) + Δ·[z(h), 1], with z the k leading principal components of states, each of unit variance.

    μ_θ is linear in H(h), as eq. 10 has it: it is written back into an actor without loss. Unit variance makes the
    gradient of Δ the natural one: a step changes actions as much along a direction in which states differ little.

    Args:
      reference: the cloned actor q_b, which never changes.
      k: how many components; 0: every feature of H(h), as it is, so that Δ is A1's own change.
    """

    basis: Tensor
    centre: Tensor

    def __init__(self, reference: Actor, k: int) -> None:
        super().__init__()
        d_a, width = reference.a1.weight.shape
        self.k = min(k, width)
        rows = self.k or width
        self.reference = [reference]  # in a list: its weights are not this module's
        self.register_buffer("basis", torch.zeros(rows, width) if self.k else torch.eye(width))
        self.register_buffer("centre", torch.zeros(rows))
        self.delta = nn.Parameter(torch.zeros(d_a, rows + 1))

    def fit(self, features: Float[Tensor, "n width"]) -> None:
        """Take the components from the first batch of states; where they have fewer, the others stay zero."""
        if not self.k:
            return
        x = self.reference[0].whiten(features)
        _, size, vectors = torch.linalg.svd(x - x.mean(0), full_matrices=False)
        known = min(self.k, int((size > 1e-6 * size[0]).sum()))
        self.basis.zero_()
        self.basis[:known] = vectors[:known] / (size[:known, None] / len(x) ** 0.5)
        self.centre.copy_(self.basis @ x.mean(0))

    def forward(self, features: Float[Tensor, "n width"]) -> Float[Tensor, "n d_a"]:
        """Mean action."""
        actor = self.reference[0]
        z = actor.whiten(features) @ self.basis.T - self.centre
        z = torch.cat([z, torch.ones_like(z[:, :1])], dim=1)
        return torch.as_tensor(actor(features).detach() + z @ self.delta.T)

    @torch.no_grad()
    def write(self, actor: Actor) -> None:
        """Make ACTOR's mean this one's."""
        along, constant, cloned = self.delta[:, :-1], self.delta[:, -1], self.reference[0].a1
        actor.a1.weight.copy_(cloned.weight + along @ self.basis)
        actor.a1.bias.copy_(cloned.bias + constant - along @ self.centre)
