"""How an actor changes while it is reinforced: from where it was cloned, along few directions.

Owns those directions and the change of A1 that they make. A1 has tens of thousands of numbers; a few thousand rewards
fit them to the users at hand and to nobody else (docs/decisions.md). Knows nothing of rewards.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pamdp.models.actor import Actor


class ActorDelta(nn.Module, ABC):
    """μ_θ(h) = μ_b(h) + ΔA1·h̃ + Δb, with h̃ the whitened H(h).

    μ_θ stays linear in H(h), as eq. 10 has it, so it is made into an actor again without loss. REFERENCE is the cloned
    actor q_b, which never changes.
    """

    reference: Actor

    def __init__(self, reference: Actor) -> None:
        super().__init__()
        self.__dict__["reference"] = reference  # past nn.Module: its weights are not this module's

    def fit(self, features: Float[Tensor, "n width"]) -> None:
        """Take units and directions from the first batch of states."""

    @abstractmethod
    def change(self) -> tuple[Float[Tensor, "d_a width"], Float[Tensor, " d_a"]]:
        """ΔA1 and Δb."""

    def forward(self, features: Float[Tensor, "n width"]) -> Float[Tensor, "n d_a"]:
        """Mean action."""
        weight, bias = self.change()
        return torch.as_tensor(self.reference(features).detach() + self.reference.whiten(features) @ weight.T + bias)

    @torch.no_grad()
    def applied(self) -> Actor:
        """A copy of the reference whose mean is this one's."""
        actor, (weight, bias) = copy.deepcopy(self.reference), self.change()
        actor.a1.weight.copy_(self.reference.a1.weight + weight)
        actor.a1.bias.copy_(self.reference.a1.bias + bias)
        return actor


class FullDelta(ActorDelta):
    """All of A1 is free, as in the paper."""

    def __init__(self, reference: Actor) -> None:
        super().__init__(reference)
        self.weight = nn.Parameter(torch.zeros_like(reference.a1.weight))
        self.bias = nn.Parameter(torch.zeros_like(reference.a1.bias))

    def change(self) -> tuple[Tensor, Tensor]:
        """The parameters themselves."""
        return self.weight, self.bias


class ComponentDelta(ActorDelta):
    """Along the K leading principal components of states, each of unit variance, and a constant.

    Unit variance makes the ordinary gradient the natural one: a step changes actions as much along a direction in
    which states differ little. What states have fewer of stays zero.
    """

    basis: Tensor
    centre: Tensor

    def __init__(self, reference: Actor, k: int) -> None:
        super().__init__(reference)
        weight, bias = reference.a1.weight, reference.a1.bias
        self.register_buffer("basis", weight.new_zeros(k, weight.shape[1]))
        self.register_buffer("centre", weight.new_zeros(k))
        self.along = nn.Parameter(weight.new_zeros(len(bias), k))
        self.constant = nn.Parameter(torch.zeros_like(bias))

    def fit(self, features: Float[Tensor, "n width"]) -> None:
        """Principal components of whitened states."""
        x = self.reference.whiten(features)
        _, size, vectors = torch.linalg.svd(x - x.mean(0), full_matrices=False)
        known = min(len(self.basis), int((size > 1e-6 * size[0]).sum()))
        self.basis.zero_()
        self.basis[:known] = vectors[:known] / (size[:known, None] / len(x) ** 0.5)
        self.centre.copy_(self.basis @ x.mean(0))

    def change(self) -> tuple[Tensor, Tensor]:
        """Δμ = along · z(h) + constant."""
        return self.along @ self.basis, self.constant - self.along @ self.centre


class GainDelta(ActorDelta):
    """Each number of the action by a gain of its own, and a constant: Δμ_k = (s + s_k)·(μ_b,k − c_k) + b_k.

    c is the mean action over states. What a state calls for was learned while cloning; rewards say how far to go, in
    all of it and in each part.
    """

    centre: Tensor

    def __init__(self, reference: Actor) -> None:
        super().__init__(reference)
        bias = reference.a1.bias
        self.register_buffer("centre", torch.zeros_like(bias))
        self.common = nn.Parameter(bias.new_zeros(()))
        self.each = nn.Parameter(torch.zeros_like(bias))
        self.constant = nn.Parameter(torch.zeros_like(bias))

    @torch.no_grad()
    def fit(self, features: Float[Tensor, "n width"]) -> None:
        """The mean action."""
        self.centre.copy_(self.reference(features).mean(0))

    def change(self) -> tuple[Tensor, Tensor]:
        """The cloned A1, scaled row by row, and a bias that keeps the mean where the constant wants it."""
        gain, cloned = self.common + self.each, self.reference.a1
        bias = gain * (cloned.bias.detach() - self.centre) + self.constant
        return gain[:, None] * cloned.weight.detach(), bias


def make_actor_delta(kind: str, reference: Actor, k: int) -> ActorDelta:
    """The change that the settings name (RLConfig.moves): gains, components (K of them) or all."""
    if kind == "components":
        return ComponentDelta(reference, min(k, len(reference.whiten.mean)))
    return GainDelta(reference) if kind == "gains" else FullDelta(reference)
