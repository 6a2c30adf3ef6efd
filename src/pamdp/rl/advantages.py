"""The advantage estimators, one function each, and their names: a comparison changes one name.

Owns equations 2, 3 and 6. Knows nothing of critics' training or of the policy. All results carry no gradient. The
discount is γ, or 0 where the dialogue ended for good (not where it hit T). Arguments of unequal shape are a ShapeError,
a β or λ outside [0, 1] is a ConfigError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from pamdp.errors import ConfigError
from pamdp.registry import ADVANTAGES
from pamdp.rl.checks import AdvantageInputs, require_fraction, require_same_shape
from pamdp.rl.odc import Coefficient, odc_advantage
from pamdp.rl.returns import lambda_returns


def a2c_advantage(
    reward: Float[Tensor, "..."],
    discount: Float[Tensor, "..."],
    v_h: Float[Tensor, "..."],
    v_h_next: Float[Tensor, "..."],
) -> Float[Tensor, "..."]:
    """Symmetric TD advantage, Eq. 2.

    A = r + γ·V_φ(h′) − V_φ(h)
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
      beta: β in [0, 1]; 1 is UAAC, and 0, which the paper leaves out, is A2C.
    """
    require_fraction(beta=beta)
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
    """
    require_same_shape(reward=reward, discount=discount, v_h_next=v_h_next, v_hw=v_hw)
    return (lambda_returns(reward, discount, v_h_next, lam) - v_hw).detach()


Estimator = Callable[[AdvantageInputs], Tensor]


@dataclass(frozen=True, slots=True)
class Advantage:
    """An estimator as the learner uses it.

    Attributes:
      estimate: from a batch of n transitions to Â, [n].
      oracle_target: what V_ξ is regressed on: `matched` r + γ·V_φ(h′) (eqs. 5 and 6), `full` r + γ·V_ξ(h′, ω′) (UAAC).
    """

    estimate: Estimator
    oracle_target: Literal["matched", "full"] = "matched"


def register_advantage(
    name: str, *, oracle_target: Literal["matched", "full"] = "matched"
) -> Callable[[Estimator], Estimator]:
    """Decorator: make a function of a batch known as the advantage NAME, in settings (`rl.advantage`) and tables.

    Args:
      name: one of the same name is replaced.
      oracle_target: what V_ξ is regressed on; see `Advantage`.

    Example:
      ```python
      @pamdp.advantage("mine", oracle_target="matched")
      def mine(b): return b.reward + b.discount * b.v_h_next - b.v_hw
      ```

    Raises:
      ConfigError: the name has blanks around it, or the target is none of the two.
    """
    if oracle_target not in ("matched", "full"):
        raise ConfigError(f"oracle_target must be 'matched' or 'full', not {oracle_target!r}")

    def register(estimate: Estimator) -> Estimator:
        ADVANTAGES.add(name, Advantage(estimate, oracle_target))
        return estimate

    return register


def compute_advantage(
    name: str, batch: AdvantageInputs, *, beta: float = 0.5, coefficients: Sequence[Coefficient] | None = None
) -> Float[Tensor, "..."]:
    """The advantage called `name`, from one batch, whose β and coefficients are set to these; carries no gradient.

    Raises:
      ConfigError: the name is unknown, β is out of range, or `odc` lacks its coefficients.
      ShapeError: the estimator gives another shape than that of the rewards.
    """
    delta = ADVANTAGES[name].estimate(replace(batch, beta=beta, coefficients=coefficients))
    require_same_shape(**{f"advantage {name}": delta, "reward": batch.reward})
    return delta.detach()


@register_advantage("a2c")
def _a2c(b: AdvantageInputs) -> Tensor:
    return a2c_advantage(b.reward, b.discount, b.v_h, b.v_h_next)


@register_advantage("uaac", oracle_target="full")
def _uaac(b: AdvantageInputs) -> Tensor:
    return uaac_advantage(b.reward, b.discount, b.v_hw, b.v_hw_next)


@register_advantage("dcrl", oracle_target="full")
def _dcrl(b: AdvantageInputs) -> Tensor:
    return dcrl_advantage(b.reward, b.discount, b.v_h, b.v_h_next, b.v_hw, b.v_hw_next, b.beta)


@register_advantage("pamdp")
def _pamdp(b: AdvantageInputs) -> Tensor:
    return dual_critic_advantage(b.reward, b.discount, b.v_h_next, b.v_hw)


def _odc(b: AdvantageInputs, safe: bool) -> Tensor:
    need = 2 + len(b.controls)
    if b.coefficients is None or len(b.coefficients) != need:
        raise ConfigError(f"odc needs {need} coefficients (OptimalDualCritic.coefficients()), not {b.coefficients}")
    c1, c2, *further = b.coefficients
    return odc_advantage(b, c1, 0.0 if safe else c2, further)


register_advantage("odc", oracle_target="full")(partial(_odc, safe=False))
register_advantage("odc_safe")(partial(_odc, safe=True))
