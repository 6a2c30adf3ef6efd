"""Shape checks of the mathematics, and the record of the six tensors that every advantage is made of.

Owns what a batch of transitions is to an estimator. Knows nothing of where rewards and values come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from pamdp.errors import ConfigError, ShapeError


def require_same_shape(**tensors: Tensor) -> None:
    """Refuse arguments of unequal shape, which broadcasting would turn into a wrong number without a word.

    Raises:
      ShapeError: the shapes differ; the message names each argument and its shape.
    """
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        named = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ShapeError(f"these must have one shape: {named}")


def require_fraction(**values: float) -> None:
    """Refuse, by name, with a ConfigError what does not lie in [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} must lie in [0, 1], not {value}")


def require_positive(**values: float) -> None:
    """Refuse, by name, with a ConfigError what is not above 0."""
    for name, value in values.items():
        if value <= 0:
            raise ConfigError(f"{name} must be positive, not {value}")


def kept(mask: Bool[Tensor, "..."] | None, **tensors: Tensor) -> tuple[Tensor, ...]:
    """The entries whose mask is true, one flat tensor per argument; the arguments unchanged without a mask.

    Entries are taken out rather than multiplied by zero: NaN times zero is NaN, in values and in gradients.
    """
    if mask is None:
        require_same_shape(**tensors)
        return tuple(tensors.values())
    require_same_shape(**tensors, mask=mask)
    return tuple(tensor[mask.bool()] for tensor in tensors.values())


@dataclass(frozen=True, slots=True)
class AdvantageInputs:
    """One batch of transitions as the estimators see it; all tensors have one shape.

    Attributes:
      reward: r.
      discount: γ, or 0 where the dialogue ended for good (not where it hit T).
      v_h: V_φ(h).
      v_h_next: V_φ(h′).
      v_hw: V_ξ(h, ω).
      v_hw_next: V_ξ(h′, ω′).
      controls: further control variates of `odc`, each with E[control · ∇log π] = 0.
      beta: β of `dcrl`.
      coefficients: (c1, c2, one per further control) of `odc` and `odc_safe`, from previous batches.
    """

    reward: Float[Tensor, "..."]
    discount: Float[Tensor, "..."]
    v_h: Float[Tensor, "..."]
    v_h_next: Float[Tensor, "..."]
    v_hw: Float[Tensor, "..."]
    v_hw_next: Float[Tensor, "..."]
    controls: tuple[Float[Tensor, "..."], ...] = ()
    beta: float = 0.5
    coefficients: Sequence[float | Tensor] | None = None

    def __post_init__(self) -> None:
        """Check once, where the batch is made."""
        require_same_shape(
            reward=self.reward,
            discount=self.discount,
            v_h=self.v_h,
            v_h_next=self.v_h_next,
            v_hw=self.v_hw,
            v_hw_next=self.v_hw_next,
            **{f"controls[{i}]": control for i, control in enumerate(self.controls)},
        )
