"""Losses of the actor, the critics and behaviour cloning.

Owns equations 12, 14 and 17 and the Gaussian density that Eq. 12 needs. Knows nothing of models and optimisers. A
transition whose mask is false takes no part: neither in a mean's sum nor in its count, nor in any gradient. With no
transition left a loss is 0. Arguments of unequal shape are a ShapeError, a σ, λ or ε out of range is a ConfigError.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pamdp.errors import ConfigError
from pamdp.rl.checks import kept, require_positive, require_same_shape


def gaussian_log_prob(
    action: Float[Tensor, "... d_a"], mean: Float[Tensor, "... d_a"], sigma: float
) -> Float[Tensor, "..."]:
    """Log density of q(a|h) = N(μ, σ²·I), the density that Eq. 12 asks for and Eq. 10 leaves open.

    log q = −‖a − μ‖²/(2σ²) − d_a·log(σ·√(2π))
    """
    require_positive(sigma=sigma)
    require_same_shape(action=action, mean=mean)
    constant = action.shape[-1] * math.log(sigma * math.sqrt(2 * math.pi))
    return -(action - mean).square().sum(-1) / (2 * sigma**2) - constant


def gaussian_kl(
    mean: Float[Tensor, "... d_a"], mean_ref: Float[Tensor, "... d_a"], sigma: float
) -> Float[Tensor, "..."]:
    """KL(q_θ ‖ q_b) of two Gaussians of equal σ, the leash of Eq. 12; no gradient to the reference.

    KL = ‖μ_θ − μ_b‖²/(2σ²)
    """
    require_positive(sigma=sigma)
    require_same_shape(mean=mean, mean_ref=mean_ref)
    return (mean - mean_ref.detach()).square().sum(-1) / (2 * sigma**2)


def reply_log_ratio(
    score: Float[Tensor, "... d_a"], mean: Float[Tensor, "... d_a"], drawn: Float[Tensor, "... d_a"]
) -> Float[Tensor, "..."]:
    """How much likelier a reply becomes as the mean action moves from DRAWN to MEAN, to first order; not in the paper.

        log π_θ(u|h) − log π_old(u|h) ≈ ∇_a log p(u|h, a)·(μ_θ − μ_old)

    In place of log q_θ(a|h) it gives Eq. 12 a gradient of the same expectation and of less variance: for a = μ + σε and
    u drawn from p(u|h, a) as it is, E[∇_a log p(u|h, a) | u] = ∇_μ log π(u|h) = E[(a − μ)/σ² | u], and the latter is
    estimated from one draw of a that most of the reply does not depend on. Where u was drawn otherwise (greedily, from
    a nucleus, by another policy) nothing corrects for it: rewarded replies become likelier, to first order.
    """
    require_same_shape(score=score, mean=mean, drawn=drawn)
    return (score.detach() * (mean - drawn.detach())).sum(-1)


def actor_loss(
    log_prob: Float[Tensor, "..."],
    advantage: Float[Tensor, "..."],
    kl: Float[Tensor, "..."],
    kl_coef: float,
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, ""]:
    """Policy gradient with a leash, Eq. 12.

        l_a = −E[δ·log q_θ(a|h)] + λ·E[KL(q_θ ‖ q_b)]

    Gradient flows through log_prob and kl, not through the advantage.
    """
    _require_coefficients(kl_coef=kl_coef)
    log_prob, advantage, kl = kept(mask, log_prob=log_prob, advantage=advantage, kl=kl)
    return _mean(kl_coef * kl - advantage.detach() * log_prob)


def surrogate_loss(
    log_prob: Float[Tensor, "..."],
    log_prob_old: Float[Tensor, "..."],
    advantage: Float[Tensor, "..."],
    clip: float,
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, ""]:
    """Clipped surrogate for several epochs on one batch; not in the paper. The leash is added by the caller.

        l = −E[min(ρ·δ, clip(ρ, 1 − ε, 1 + ε)·δ)],    ρ = q_θ(a|h)/q_old(a|h)

    Where θ is still the old one its gradient is that of the first term of Eq. 12.
    """
    require_positive(clip=clip)
    log_prob, log_prob_old, advantage = kept(mask, log_prob=log_prob, log_prob_old=log_prob_old, advantage=advantage)
    ratio, advantage = (log_prob - log_prob_old.detach()).exp(), advantage.detach()
    return _mean(-torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage))


def critic_loss(
    v_h: Float[Tensor, "..."],
    target_h: Float[Tensor, "..."],
    v_hw: Float[Tensor, "..."],
    target_hw: Float[Tensor, "..."],
    alpha1: float = 1.0,
    alpha2: float = 1.0,
    kind: Literal["mse", "l1"] = "mse",
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, ""]:
    """Regression of both critics on their targets, Eq. 14.

        l_c = α1·E[(V_φ(h) − R(h))²] + α2·E[(V_ξ(h, ω) − R(h, ω))²]

    Args:
      kind: `l1` is the paper's unsquared norm, |·| on a scalar; it fits the median of the target, not its mean.

    Raises:
      ConfigError: α1 or α2 is negative, or the kind is unknown.
    """
    _require_coefficients(alpha1=alpha1, alpha2=alpha2)
    if kind not in ("mse", "l1"):
        raise ConfigError(f"critic loss must be 'mse' or 'l1', not {kind!r}")
    v_h, target_h, v_hw, target_hw = kept(mask, v_h=v_h, target_h=target_h, v_hw=v_hw, target_hw=target_hw)
    error_h, error_hw = v_h - target_h.detach(), v_hw - target_hw.detach()
    if kind == "l1":
        return _mean(alpha1 * error_h.abs() + alpha2 * error_hw.abs())
    return _mean(alpha1 * error_h.square() + alpha2 * error_hw.square())


def cloning_loss(
    token_log_prob: Float[Tensor, "B L"],
    mask: Bool[Tensor, "B L"] | None = None,
    transition_mask: Bool[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of the reference reply under the actor's action, Eq. 17; the mean over reply tokens.

        l_bc = −Σ log p(u_g^k | h, a·A2, u_g^{<k}) / number of tokens

    Args:
      mask: true on the reply's tokens, false on padding; None where nothing is padded.
      transition_mask: false where a whole reply does not count.
    """
    if transition_mask is not None:
        require_same_shape(transition_mask=transition_mask, replies=token_log_prob[..., 0])
        whole = transition_mask.bool().unsqueeze(-1).expand_as(token_log_prob)
        mask = whole if mask is None else mask.bool() & whole
    (token_log_prob,) = kept(mask, token_log_prob=token_log_prob)
    return -_mean(token_log_prob)


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(values.numel(), 1)


def _require_coefficients(**values: float) -> None:
    for name, value in values.items():
        if value < 0:
            raise ConfigError(f"{name} must not be negative, not {value}")
