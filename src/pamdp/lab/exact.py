"""Exact mean and variance of every estimator's policy gradient, by enumerating the transitions of a solved problem.

Owns the list of methods that are compared, and their moments under the true dynamics with any critics, exact or
learned. The advantages are those of `pamdp.rl`, on enumerated instead of sampled transitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pamdp.lab.tabular import Critics, Oracle, Solution, TabularPamdp, by_answer
from pamdp.rl.advantages import compute_advantage
from pamdp.rl.checks import AdvantageInputs
from pamdp.rl.odc import control_variates, optimal_coefficients


@dataclass(frozen=True, slots=True)
class ExactEstimator:
    """A row of the lab's tables: an advantage and the oracle value that its V_ξ is.

    Attributes:
      label: the name in tables.
      advantage: its name in `pamdp.rl.advantages.ADVANTAGES`.
      oracle: what V_ξ is regressed on.
    """

    label: str
    advantage: str
    oracle: Oracle


METHODS: tuple[ExactEstimator, ...] = (
    ExactEstimator("A2C", "a2c", "full"),
    ExactEstimator("UAAC", "uaac", "full"),
    ExactEstimator("DCRL .5", "dcrl", "full"),
    ExactEstimator("PAMDP-X", "pamdp", "full"),
    ExactEstimator("PAMDP-W", "pamdp", "matched"),
    ExactEstimator("ODC", "odc", "full"),
    ExactEstimator("ODC safe", "odc_safe", "matched"),
)


@dataclass(frozen=True, slots=True)
class Enumeration:
    """All transitions (h, ω, u, o, ω′) of one turn, on axes N H W U O W.

    Attributes:
      chance: p(u, o, ω′ | h, ω).
      probability: P(h, ω) · p(u, o, ω′ | h, ω).
      inputs: what the estimators see.
      direction: e_u − π(·|h), the score with respect to the logits, on axes N H U U.
      score_sq: s² = ‖∇_θ log π(u|h)‖².
    """

    chance: Float[Tensor, "N H W U O W"]
    probability: Float[Tensor, "N H W U O W"]
    inputs: AdvantageInputs
    direction: Float[Tensor, "N H U U"]
    score_sq: Float[Tensor, "N H W U O W"]


Features = Sequence[Float[Tensor, "N H d"]]
"""φ(h) of a policy with shared parameters, π = softmax(φ(h)·A): the lab's picture of H(h)·A1."""


def enumerate_turns(
    pamdp: TabularPamdp, solution: Solution, critics: Critics, features: Features | None = None
) -> list[Enumeration]:
    """Every transition of every turn, with its probability and what the critics say about it.

    FEATURES are those of a policy with shared parameters; without them every history has parameters of its own.
    """
    result = []
    for t, turn in enumerate(pamdp.turns):
        shape, pi = turn.drift.shape, solution.policy[t]
        chance = torch.einsum("nhu,nhwuo,nhwuoz->nhwuoz", pi, turn.answer, turn.drift)
        after = 0.0 if t == len(pamdp.turns) - 1 else pamdp.gamma
        v_h_next, v_hw_next = by_answer(critics.v_h[t + 1], turn), by_answer(critics.v_hw[t + 1], turn)
        inputs = AdvantageInputs(
            reward=turn.reward[..., None, None].expand(shape),
            discount=torch.full_like(turn.reward, after)[..., None, None].expand(shape),
            v_h=critics.v_h[t][:, :, None, None, None, None].expand(shape),
            v_h_next=v_h_next[:, :, None, :, :, None].expand(shape),
            v_hw=critics.v_hw[t][:, :, :, None, None, None].expand(shape),
            v_hw_next=v_hw_next[:, :, None].expand(shape),
        )
        direction = torch.eye(shape[3], dtype=pi.dtype) - pi.unsqueeze(2)
        score_sq = direction.square().sum(-1)
        if features is not None:
            score_sq = score_sq * features[t].square().sum(-1, keepdim=True)
        result.append(
            Enumeration(
                chance,
                solution.occupancy[t][..., None, None, None] * chance,
                inputs,
                direction,
                score_sq[:, :, None, :, None, None].expand(shape),
            )
        )
    return result


def optimal(turns: Sequence[Enumeration], weights: Sequence[float], *, safe: bool = False) -> Float[Tensor, "N 2"]:
    """ODC's coefficients from exact moments, one pair for all the given turns.

    Args:
      weights: of each turn's moments; γ^{2t} for the gradient's variance.
      safe: c1 only, c2 = 0.
    """
    second, cross = [], []
    for turn, weight in zip(turns, weights, strict=True):
        delta, f = control_variates(turn.inputs)
        mass = weight * turn.probability * turn.score_sq
        second.append(torch.einsum("nhwuoz,nhwuozi,nhwuozj->nij", mass, f, f))
        cross.append(torch.einsum("nhwuoz,nhwuozi,nhwuoz->ni", mass, f, delta))
    free = 1 if safe else 2
    all_second, all_cross = torch.stack(second).sum(0), torch.stack(cross).sum(0)
    result = torch.zeros_like(all_cross)
    result[:, :free] = optimal_coefficients(all_second[:, :free, :free], all_cross[:, :free])
    return result


def deltas(
    method: ExactEstimator, turns: Sequence[Enumeration], coefficients: Sequence[Float[Tensor, "N 2"]] | None = None
) -> list[Tensor]:
    """The method's advantage of every enumerated transition, one tensor a turn; (c1, c2) of ODC are given by turn."""
    if coefficients is None:
        return [compute_advantage(method.advantage, turn.inputs) for turn in turns]
    result = []
    for turn, pair in zip(turns, coefficients, strict=True):
        c1, c2 = (c.reshape(-1, 1, 1, 1, 1, 1).expand_as(turn.probability) for c in pair.unbind(-1))
        result.append(compute_advantage(method.advantage, turn.inputs, coefficients=(c1, c2)))
    return result


def expected_gradient(
    turns: Sequence[Enumeration], delta: Sequence[Tensor], gamma: float
) -> tuple[Float[Tensor, "N H U"], ...]:
    """E[γ^t · δ · ∇log π] with respect to the logits, one tensor a turn."""
    return tuple(
        gamma**t * torch.einsum("nhwuoz,nhwuoz,nhuv->nhv", turn.probability, d, turn.direction)
        for t, (turn, d) in enumerate(zip(turns, delta, strict=True))
    )


def second_moments(turns: Sequence[Enumeration], delta: Sequence[Tensor]) -> Float[Tensor, "T N"]:
    """E[s²·δ²] of every turn."""
    return torch.stack(
        [(turn.probability * turn.score_sq * d**2).flatten(1).sum(1) for turn, d in zip(turns, delta, strict=True)]
    )


def trajectory_moments(
    pamdp: TabularPamdp, turns: Sequence[Enumeration], delta: Sequence[Tensor], features: Features
) -> tuple[Float[Tensor, "N dU"], Float[Tensor, " N"]]:
    """Mean and total variance of one dialogue's gradient Σ_t γ^t·δ_t·∇_A log π(u_t|h_t), for shared parameters A.

    Turns are not orthogonal here, so the variance is not the sum of theirs. By dynamic programming over (h, ω) for the
    mean M1 and the mean square M2 of the gradient from turn t on:

        M2_t = E[(γ^t·δ·s)² + 2·γ^t·δ·∇log π · M1_{t+1}(h′, ω′) + M2_{t+1}(h′, ω′)]
    """
    n, h, w, u, o, _ = turns[-1].probability.shape
    mean = pamdp.start.new_zeros(n, h * u * o, w, features[-1].shape[-1], u)
    square = pamdp.start.new_zeros(n, h * u * o, w)
    for t in reversed(range(len(turns))):
        turn, phi = turns[t], features[t]
        mean_next, square_next = by_answer(mean, pamdp.turns[t]), by_answer(square, pamdp.turns[t])
        step = pamdp.gamma**t * delta[t]
        score = torch.einsum("nhd,nhuv->nhudv", phi, turn.direction)
        cross = 2 * step * torch.einsum("nhudv,nhuozdv->nhuoz", score, mean_next).unsqueeze(2)
        square = turn.chance * (step**2 * turn.score_sq + cross + square_next.unsqueeze(2))
        square = square.sum((-3, -2, -1))
        mean = torch.einsum("nhwuoz,nhwuoz,nhudv->nhwdv", turn.chance, step, score)
        mean = mean + torch.einsum("nhwuoz,nhuozdv->nhwdv", turn.chance, mean_next)
    gradient = torch.einsum("nw,nwdv->ndv", pamdp.start, mean[:, 0]).flatten(1)
    return gradient, (pamdp.start * square[:, 0]).sum(-1) - gradient.square().sum(-1)
