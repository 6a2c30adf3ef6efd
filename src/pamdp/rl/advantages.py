"""The advantage estimators, one function each, and their registry: a comparison changes one name.

Owns equations 2, 3 and 6. Knows nothing of critics' training or of the policy. All results carry no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from pamdp.errors import ConfigError
from pamdp.rl.checks import AdvantageInputs, require_same_shape
from pamdp.rl.odc import Coefficient, odc_advantage
from pamdp.rl.returns import lambda_returns

__all__ = [
    "ADVANTAGES",
    "ORACLE_TARGETS",
    "AdvantageInputs",
    "a2c_advantage",
    "advantage",
    "dcrl_advantage",
    "dual_critic_advantage",
    "lambda_advantage",
    "uaac_advantage",
]


def a2c_advantage(
    reward: Float[Tensor, "..."],
    discount: Float[Tensor, "..."],
    v_h: Float[Tensor, "..."],
    v_h_next: Float[Tensor, "..."],
) -> Float[Tensor, "..."]:
    """Symmetric TD advantage, Eq. 2.

        A = r + γ·V_φ(h′) − V_φ(h)

    Args:
      discount: γ, or 0 where the dialogue ended for good (not where it hit T).

    Raises:
      ShapeError: shapes differ.
    """
    require_same_shape(reward=reward, discount=discount, v_h=v_h, v_h_next=v_h_next)
    return (reward + discount * v_h_next - v_h).detach()


def uaac_advantage(
    reward: Float[Tensor, "..."],
    discount: Float[Tensor, "..."],
    v_hw: Float[Tensor, "..."],
    v_hw_next: Float[Tensor, "..."],
) -> Float[Tensor, "..."]:
    """Asymmetric TD advantage, Eq. 3 with β = 1.

        A = r + γ·V_ξ(h′, ω′) − V_ξ(h, ω)

    Exact in expectation when V_ξ is the full oracle value; errors of V_ξ(h′, ω′) do bias it.

    Args:
      discount: γ, or 0 where the dialogue ended for good (not where it hit T).

    Raises:
      ShapeError: shapes differ.
    """
    require_same_shape(reward=reward, discount=discount, v_hw=v_hw, v_hw_next=v_hw_next)
    return (reward + discount * v_hw_next - v_hw).detach()


def dcrl_advantage(
    reward: Float[Tensor, "..."],
    discount: Float[Tensor, "..."],
    v_h: Float[Tensor, "..."],
    v_h_next: Float[Tensor, "..."],
    v_hw: Float[Tensor, "..."],
    v_hw_next: Float[Tensor, "..."],
    beta: float,
) -> Float[Tensor, "..."]:
    """Fixed mixture of the two TD advantages, Eq. 3.

        A = β·(r + γ·V_ξ(h′, ω′) − V_ξ(h, ω)) + (1 − β)·(r + γ·V_φ(h′) − V_φ(h))

    Args:
      discount: γ, or 0 where the dialogue ended for good (not where it hit T).
      beta: β in [0, 1]; 1 is UAAC, and 0, which the paper leaves out, is A2C.

    Raises:
      ShapeError: shapes differ.
      ConfigError: β is out of range.
    """
    if not 0 <= beta <= 1:
        raise ConfigError(f"beta must lie in [0, 1], not {beta}")
    require_same_shape(v_h=v_h, v_hw=v_hw)
    asymmetric = uaac_advantage(reward, discount, v_hw, v_hw_next)
    return beta * asymmetric + (1 - beta) * a2c_advantage(reward, discount, v_h, v_h_next)


def dual_critic_advantage(
    reward: Float[Tensor, "..."],
    discount: Float[Tensor, "..."],
    v_h_next: Float[Tensor, "..."],
    v_hw: Float[Tensor, "..."],
) -> Float[Tensor, "..."]:
    """Dual-critic TD advantage, Eq. 6; the paper's own.

        Â = r + γ·V_φ(h′) − V_ξ(h, ω)

    Same expected policy gradient as Eq. 2 for any V_ξ.

    Args:
      discount: γ, or 0 where the dialogue ended for good (not where it hit T).

    Raises:
      ShapeError: shapes differ; a (B, 1) critic head would broadcast to (B, B).
    """
    require_same_shape(reward=reward, discount=discount, v_h_next=v_h_next, v_hw=v_hw)
    return (reward + discount * v_h_next - v_hw).detach()


def lambda_advantage(
    reward: Float[Tensor, "... T"],
    discount: Float[Tensor, "... T"],
    v_h_next: Float[Tensor, "... T"],
    v_hw: Float[Tensor, "... T"],
    lam: float,
) -> Float[Tensor, "... T"]:
    """Dual-critic advantage of λ-returns; Eq. 6 at λ = 0.

        Â_t = G^λ_t − V_ξ(h_t, ω_t)

    V_ξ is to be regressed on the same G^λ. The sum of Eq. 6's deltas is something else: its terms do not telescope,
    because what it adds at t + 1 (V_φ) is not what it takes off at t (V_ξ).

    Raises:
      ShapeError: shapes differ.
      ConfigError: λ lies outside [0, 1].
    """
    require_same_shape(reward=reward, discount=discount, v_h_next=v_h_next, v_hw=v_hw)
    return (lambda_returns(reward, discount, v_h_next, lam) - v_hw).detach()


Coefficients = Sequence[Coefficient]
Estimator = Callable[[AdvantageInputs, float, Coefficients | None], Tensor]


def _odc(batch: AdvantageInputs, coefficients: Coefficients | None, *, safe: bool) -> Tensor:
    if coefficients is None or len(coefficients) != 2 + len(batch.controls):
        need = 2 + len(batch.controls)
        raise ConfigError(f"odc needs {need} coefficients (OptimalDualCritic.coefficients()), not {coefficients}")
    c1, c2, *further = coefficients
    return odc_advantage(
        batch.reward,
        batch.discount,
        batch.v_h,
        batch.v_h_next,
        batch.v_hw,
        batch.v_hw_next,
        c1,
        0.0 if safe else c2,
        controls=batch.controls,
        further=further,
    )


ADVANTAGES: dict[str, Estimator] = {
    "a2c": lambda b, _beta, _c: a2c_advantage(b.reward, b.discount, b.v_h, b.v_h_next),
    "uaac": lambda b, _beta, _c: uaac_advantage(b.reward, b.discount, b.v_hw, b.v_hw_next),
    "dcrl": lambda b, beta, _c: dcrl_advantage(b.reward, b.discount, b.v_h, b.v_h_next, b.v_hw, b.v_hw_next, beta),
    "pamdp": lambda b, _beta, _c: dual_critic_advantage(b.reward, b.discount, b.v_h_next, b.v_hw),
    "odc": lambda b, _beta, c: _odc(b, c, safe=False),
    "odc_safe": lambda b, _beta, c: _odc(b, c, safe=True),
}

ORACLE_TARGETS: dict[str, Literal["matched", "full"]] = {
    "a2c": "matched",
    "uaac": "full",
    "dcrl": "full",
    "pamdp": "matched",
    "odc": "full",
    "odc_safe": "matched",
}
"""What V_ξ is to be regressed on: `matched` r + γ·V_φ(h′) (Eqs. 5 and 6), `full` r + γ·V_ξ(h′, ω′) (UAAC)."""


def advantage(
    name: str, batch: AdvantageInputs, *, beta: float = 0.5, coefficients: Coefficients | None = None
) -> Float[Tensor, "..."]:
    """The advantage called `name`, from one batch.

    Args:
      beta: β of `dcrl`.
      coefficients: (c1, c2, one per further control) of `odc` and `odc_safe`, from previous batches.

    Raises:
      ConfigError: the name is unknown, β is out of range, or `odc` lacks its coefficients.
    """
    if name not in ADVANTAGES:
        raise ConfigError(f"unknown advantage {name!r}; known: {', '.join(ADVANTAGES)}")
    return ADVANTAGES[name](batch, beta, coefficients)
