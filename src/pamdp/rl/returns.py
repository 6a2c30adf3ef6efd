"""Returns, regression targets of the critics, and how well these predict.

Owns what a value is regressed on: TD, λ-return, and Eq. 14 to the letter. Knows nothing of critics. The last axis of
a trajectory is time. No result carries a gradient. Arguments of unequal shape are a ShapeError, a λ
outside [0, 1] is a ConfigError. The discount is γ, or 0 where the dialogue ended for good (not where it hit T).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pamdp.errors import ConfigError
from pamdp.rl.checks import kept, require_fraction, require_same_shape


def lambda_returns(
    reward: Float[Tensor, "... T"],
    discount: Float[Tensor, "... T"],
    v_next: Float[Tensor, "... T"],
    lam: float,
    last: Bool[Tensor, "... T"] | None = None,
) -> Float[Tensor, "... T"]:
    """λ-return of whole trajectories.

        G^λ_t = r_t + γ_t · ((1 − λ)·V(h_{t+1}) + λ·G^λ_{t+1}),    G^λ_{T−1} = r_{T−1} + γ_{T−1}·V(h_T)

    λ = 0 is the TD target; λ = 1 the discounted return, bootstrapped where the horizon cut the dialogue.

    Args:
      v_next: V(h_{t+1}); at the last turn the value to bootstrap from.
      last: true where a trajectory ends before the axis does (padding follows); there, too, the return bootstraps.
    """
    require_same_shape(reward=reward, discount=discount, v_next=v_next)
    require_fraction(lam=lam)
    ends = torch.zeros_like(reward, dtype=torch.bool) if last is None else last
    require_same_shape(reward=reward, last=ends)
    onward = v_next[..., -1]
    result: list[Tensor] = []
    for t in reversed(range(reward.shape[-1])):
        chained = torch.where(ends[..., t], v_next[..., t], (1 - lam) * v_next[..., t] + lam * onward)
        onward = reward[..., t] + discount[..., t] * chained
        result.append(onward)
    return torch.stack(result[::-1], dim=-1).detach()


def td_target(
    reward: Float[Tensor, "..."], discount: Float[Tensor, "..."], v_next: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """One-step target, the default reading of Eq. 14.

        R = r + γ·V(h′)

    v_next decides which value is learned: V_φ(h′) gives V(h), and the matched oracle W(h, ω) of Eqs. 5 and 6 when
    regressed on (h, ω); V_ξ(h′, ω′) gives the full oracle X(h, ω) of UAAC.
    """
    require_same_shape(reward=reward, discount=discount, v_next=v_next)
    return (reward + discount * v_next).detach()


def literal_target(
    reward: Float[Tensor, "..."], v: Float[Tensor, "..."], v_next: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Eq. 14 to the letter, for comparison only.

        R = r + V(h′) − V(h)

    Its fixed point is V = ½·E[r + V(h′)]: half the scale and an effective discount of ½, so a late reward is lost.

    Args:
      v_next: V(h′), and 0 after the last turn: this form has no γ that could say so.
    """
    require_same_shape(reward=reward, v=v, v_next=v_next)
    return (reward + v_next - v).detach()


def max_value(r_max: float, gamma: float, horizon: int, margin: float = 1.25) -> float:
    """v_m of Eq. 13 that covers every return of `horizon` turns.

        v_m = 1.25 · r_max · (1 − γ^T) / (1 − γ)

    The margin is there because tanh reaches its bound only at infinity.

    Raises:
      ConfigError: r_max is not positive, γ lies outside [0, 1], the horizon is below 1 or the margin below 1.
    """
    require_fraction(gamma=gamma)
    if r_max <= 0 or horizon < 1 or margin < 1:
        raise ConfigError(f"need r_max > 0, horizon >= 1, margin >= 1; got {r_max}, {horizon}, {margin}")
    return margin * r_max * sum(gamma**t for t in range(horizon))


def explained_variance(
    prediction: Float[Tensor, "..."], target: Float[Tensor, "..."], mask: Bool[Tensor, "..."] | None = None
) -> float:
    """Share of the target's variance that a critic explains; 1 perfect, 0 a constant, below 0 worse than one.

        1 − Var[target − prediction] / Var[target]

    NaN where the target does not vary (or fewer than two entries count): there is nothing to explain.
    """
    prediction, target = kept(mask, prediction=prediction, target=target)
    if target.numel() < 2:
        return float("nan")
    total = target.double().var(correction=0)
    if total <= 0:
        return float("nan")
    return float(1 - (target.double() - prediction.double()).var(correction=0) / total)
