"""The optimal dual critic (ODC): the control-variate combination of both critics with the least variance.

Owns the estimator, its coefficients and their running estimate. Knows nothing of models: the squared score of a
transition comes in as a number, for a Gaussian policy from `gaussian_score_sq` at no extra forward pass.
Arguments of unequal shape are a ShapeError, settings out of range a ConfigError.

Notation: Z1 = V_ξ(h, ω) − V_φ(h), Z2 = γ·(V_ξ(h′, ω′) − V_φ(h′)), F = (Z1, −Z2, further controls), s² = ‖∇log π‖².
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pamdp.errors import ConfigError, ShapeError
from pamdp.rl.checks import AdvantageInputs, kept, require_positive, require_same_shape

Coefficient = float | Tensor


def odc_advantage(
    batch: AdvantageInputs, c1: Coefficient, c2: Coefficient, further: Sequence[Coefficient] = ()
) -> Float[Tensor, "..."]:
    """Both critics as control variates of Eq. 2; not in the paper.

        δ(c1, c2) = r + γ·V_φ(h′) − V_φ(h) − c1·Z1 + c2·Z2 − Σ_j c_j·control_j

    (0, 0) is A2C, (1, 1) UAAC, (β, β) DCRL, (1, 0) Eq. 6. With exact critics (V_ξ the full oracle value) every
    constant (c1, c2) gives the exact expected policy gradient; with c2 = 0 any V_ξ does.

    Args:
      c1: one number, or a tensor of the shape of the reward, such as one coefficient for each turn.
      c2: the same.
      further: the same for each of the batch's controls.

    Raises:
      ShapeError: shapes differ, or controls and their coefficients differ in number.
    """
    b = batch
    if len(b.controls) != len(further):
        raise ShapeError(f"{len(b.controls)} controls but {len(further)} further coefficients")
    coefficients = {"c1": c1, "c2": c2} | {f"further[{i}]": c for i, c in enumerate(further)}
    require_same_shape(reward=b.reward, **{name: c for name, c in coefficients.items() if isinstance(c, Tensor)})
    delta = b.reward + b.discount * b.v_h_next - b.v_h - c1 * (b.v_hw - b.v_h)
    delta = delta + c2 * b.discount * (b.v_hw_next - b.v_h_next)
    for c, control in zip(further, b.controls, strict=True):
        delta = delta - c * control
    return delta.detach()


def control_variates(batch: AdvantageInputs) -> tuple[Float[Tensor, "..."], Float[Tensor, "... k"]]:
    """δ_A2C and what ODC takes from it: δ(c) = δ_A2C − c·F.

    F = (V_ξ(h, ω) − V_φ(h), −γ·(V_ξ(h′, ω′) − V_φ(h′)), further controls)
    """
    b = batch
    delta = (b.reward + b.discount * b.v_h_next - b.v_h).detach()
    features = torch.stack([b.v_hw - b.v_h, -b.discount * (b.v_hw_next - b.v_h_next), *b.controls], dim=-1)
    return delta, features.detach()


def optimal_coefficients(
    second: Float[Tensor, "*n k k"],
    cross: Float[Tensor, "*n k"],
    ridge: float = 0.0,
    prior: Float[Tensor, " k"] | None = None,
) -> Float[Tensor, "*n k"]:
    """Coefficients of least score-weighted second moment E[s²·δ²].

        c* = M⁻¹·E[s²·F·δ_A2C],    M = E[s²·F·Fᵀ];    with a ridge:    c = c_0 + (M + ρ·diag M)⁻¹·(M·c* − M·c_0)

    Solved by pseudo-inverse in float64, because Z2 vanishes where every dialogue ends and both controls vanish where
    the profile does not matter; such a direction keeps the coefficient of the prior.

    Args:
      second: M, or any multiple of it.
      cross: M·c*, that is E[s²·F·δ_A2C], by the same multiple.
      ridge: ρ; relative, so that the unit of a control does not matter.
      prior: c_0; 0, which is A2C, if not given.

    Raises:
      ShapeError: `second` is not k x k for the k of `cross`.
    """
    if second.shape != (*cross.shape, cross.shape[-1]):
        raise ShapeError(f"second {tuple(second.shape)} must be square in the last axis of cross {tuple(cross.shape)}")
    second, cross = second.double(), cross.double()
    start = torch.zeros_like(cross) if prior is None else prior.double().expand_as(cross)
    matrix = second + ridge * torch.diag_embed(second.diagonal(dim1=-2, dim2=-1))
    inverse: Tensor = torch.linalg.pinv(matrix, hermitian=True)
    return start + (inverse @ (cross - (second @ start.unsqueeze(-1)).squeeze(-1)).unsqueeze(-1)).squeeze(-1)


def gaussian_score_sq(
    features: Float[Tensor, "... d"],
    action: Float[Tensor, "... d_a"],
    mean: Float[Tensor, "... d_a"],
    sigma: float,
) -> Float[Tensor, "..."]:
    """Squared norm of the score of q(a|h) = N(H(h)·A1, σ²·I) with respect to A1, in closed form.

        s² = ‖∇_{A1} log q(a|h)‖² = ‖(a − μ)/σ²‖² · ‖H(h)‖²

    The gradient is the outer product H(h)ᵀ·(a − μ)/σ², whose Frobenius norm is the product of the two norms.
    """
    require_positive(sigma=sigma)
    require_same_shape(action=action, mean=mean)
    require_same_shape(features=features[..., 0], action=action[..., 0])
    residual = ((action - mean) / sigma**2).square().sum(-1)
    return (residual * features.square().sum(-1)).detach()


def leave_one_out_control(
    target: Float[Tensor, "... K"], v_h: Float[Tensor, "... K"], mask: Bool[Tensor, "... K"] | None = None
) -> Float[Tensor, "... K"]:
    """Control variate from the other samples of the same state; independent of the sample's own action.

        Z_i = 1/(K − 1) · Σ_{j ≠ i} target_j − V_φ(h)

    Its product with the score of sample i has mean zero for any target and any critic, so it cannot bias.

    Args:
      target: r + γ·V_φ(h′) of K samples of one state (or of one state and profile), along the last axis.
      mask: false where a sample does not count; 0 is returned where no other sample does.

    Raises:
      ShapeError: shapes differ or K < 2.
    """
    counts = torch.ones_like(target, dtype=torch.bool) if mask is None else mask.bool()
    require_same_shape(target=target, v_h=v_h, mask=counts)
    if target.shape[-1] < 2:
        raise ShapeError(f"leave-one-out needs two samples of a state along the last axis: target {target.shape}")
    clean = torch.where(counts, target, torch.zeros_like(target))
    others = counts.sum(-1, keepdim=True) - counts.to(torch.long)
    mean = (clean.sum(-1, keepdim=True) - clean) / others.clamp(min=1)
    return torch.where(others > 0, mean - v_h, torch.zeros_like(mean)).detach()


def bootstrap_moments(
    discount: Float[Tensor, "..."],
    score_sq: Float[Tensor, "..."],
    residual_h: Float[Tensor, "..."],
    residual_hw: Float[Tensor, "..."],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """What the errors of learned critics at h′ add to the squared error of the gradient; not in the paper.

    A critic that averages N noisy targets is off by about their spread over √n(h′), and a batch of B transitions meets
    the same error at h′ again and again, so that it does not average out. In the squared error of the batch's mean
    gradient, times B, both counts of h′ cancel and what is left is

        E[s²·δ²] + (B/N)·E[s²·γ²·((1 − c2)²·ρ_φ + c2²·ρ_ξ)]

    with ρ the squared TD errors of both critics at h′: V_φ(h′) enters with 1 − c2, V_ξ(h′, ω′) with c2. The second term
    is a parabola in c2 alone.

    Args:
      residual_h: ρ_φ, the square of r′ + γ·V_φ(h″) − V_φ(h′); 0 where nothing is bootstrapped.
      residual_hw: ρ_ξ, the square of r′ + γ·V_ξ(h″, ω″) − V_ξ(h′, ω′); 0 where nothing is bootstrapped.

    Returns:
      Σ s²·γ²·(ρ_φ + ρ_ξ), which adds to M's entry of Z2, and Σ s²·γ²·ρ_φ, which adds to E[s²·F·δ_A2C]'s.
    """
    require_same_shape(discount=discount, score_sq=score_sq, residual_h=residual_h, residual_hw=residual_hw)
    weight = (score_sq * discount.square()).detach().double()
    return (weight * (residual_h + residual_hw)).sum(), (weight * residual_h).sum()


class OptimalDualCritic:
    """Running estimate of ODC's coefficients from previous batches.

    Use it in this order, in every iteration: `advantage("odc", batch, coefficients=critic.coefficients())`, then
    `update(batch, score_sq)`, and only then fit the critics on the batch. Coefficients that saw the batch they are
    applied to would bias the gradient, and critics that saw the batch would look better in `update` than they are.

    Args:
      decay: weight of the past, per batch.
      ridge: weight of the prior, in transitions; it fades as transitions are seen.
      prior: c1 and c2 before the first batch. One half is DCRL: never the best of A2C, UAAC and Eq. 6, but never far
        from it, and the first steps are taken when the least is known.
      safe: estimate c1 only and keep c2 = 0, so that no error of V_ξ can bias (`odc_safe`).
      controls: number of further control variates in the batches; their prior is 0.
    """

    def __init__(
        self, decay: float = 0.9, ridge: float = 16.0, prior: float = 0.5, *, safe: bool = False, controls: int = 0
    ) -> None:
        if not 0 <= decay <= 1 or ridge < 0 or controls < 0:
            raise ConfigError(f"need 0 <= decay <= 1, ridge >= 0, controls >= 0; got {decay}, {ridge}, {controls}")
        self.decay, self.ridge, self.safe = decay, ridge, safe
        self._prior = torch.tensor([prior, 0.0 if safe else prior] + [0.0] * controls, dtype=torch.float64)
        self._second = torch.zeros(2 + controls, 2 + controls, dtype=torch.float64)
        self._cross = torch.zeros(2 + controls, dtype=torch.float64)
        self._bootstrap = torch.zeros(2, dtype=torch.float64)
        self._count = 0.0

    def update(
        self,
        batch: AdvantageInputs,
        score_sq: Float[Tensor, "..."],
        mask: Bool[Tensor, "..."] | None = None,
        residuals: tuple[Float[Tensor, "..."], Float[Tensor, "..."]] | None = None,
    ) -> None:
        """Take in one batch: moments of s²·F·Fᵀ and s²·F·δ_A2C, the past decayed.

        Args:
          score_sq: s² of each transition; its scale does not matter.
          mask: false where a transition does not count.
          residuals: squared TD errors of V_φ and V_ξ at h′ (`bootstrap_moments`), for coefficients that weigh them.

        Raises:
          ShapeError: shapes differ, or the batch has another number of controls.
        """
        if len(batch.controls) != len(self._cross) - 2:
            raise ShapeError(f"{len(batch.controls)} controls in the batch, {len(self._cross) - 2} expected")
        delta, features = control_variates(batch)
        columns = {f"control {i}": features[..., i] for i in range(len(self._cross))}
        delta, weight, *columns_kept = kept(mask, delta=delta, score_sq=score_sq.detach(), **columns)
        stacked = torch.stack([column.flatten() for column in columns_kept], dim=-1).double().cpu()
        weighted = weight.flatten().double().cpu().unsqueeze(-1) * stacked
        self._second = self.decay * self._second + weighted.mT @ stacked
        self._cross = self.decay * self._cross + weighted.mT @ delta.flatten().double().cpu()
        if residuals is not None:
            bootstrapped = {"discount": batch.discount, "score_sq": score_sq, "h": residuals[0], "hw": residuals[1]}
            moments = torch.stack(bootstrap_moments(*kept(mask, **bootstrapped)))
            self._bootstrap = self.decay * self._bootstrap + moments.cpu()
        self._count = self.decay * self._count + len(stacked)

    def coefficients(self, share: float = 0.0) -> tuple[float, ...]:
        """(c1, c2, one per further control) from all batches so far; the prior before the first.

        Args:
          share: B/N, the size of the batch that they are for over how much the critics have learned from (for critics
            that average: their step size); 0 minimises the variance and trusts the critics.
        """
        free = [i for i in range(len(self._cross)) if not (self.safe and i == 1)]
        ridge = self.ridge / max(self._count, 1.0)
        second, cross = self._second.clone(), self._cross.clone()
        second[1, 1] += share * self._bootstrap[0]
        cross[1] += share * self._bootstrap[1]
        result = torch.zeros_like(cross)
        result[free] = optimal_coefficients(second[free][:, free], cross[free], ridge, self._prior[free])
        return tuple(float(c) for c in result)

    def state_dict(self) -> dict[str, float]:
        """The moments as named numbers, for a checkpoint."""
        return {"count": self._count} | {name: float(moments[index]) for name, moments, index in self._entries()}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take up the moments of a checkpoint.

        Raises:
          ConfigError: the state has other names, such as those of another number of controls.
        """
        if state.keys() != self.state_dict().keys():
            raise ConfigError("this state of the optimal dual critic has other moments than expected")
        self._count = float(state["count"])
        for name, moments, index in self._entries():
            moments[index] = state[name]

    def _entries(self) -> Iterator[tuple[str, Tensor, tuple[int, ...]]]:
        for name, moments in {"bootstrap": self._bootstrap, "cross": self._cross, "second": self._second}.items():
            for index in np.ndindex(*moments.shape):
                yield "_".join([name, *map(str, index)]), moments, index
