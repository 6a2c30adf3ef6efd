"""Tabular PAMDPs that are small enough to be solved exactly, many at a time.

Owns the model and its exact quantities by dynamic programming over the tree of histories: occupancy, belief, V(h),
both oracle values, Q, J and its gradient. Knows nothing of estimators and of learning.

Axes: N problems, H_t histories of turn t, W profiles, U utterances, O user answers. The history that follows h by
(u, o) has number (h·U + u)·O + o, so that H_t = (U·O)^t and turn 0 has the one history q_0. All tensors are float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Oracle = Literal["matched", "full"]
Logits = Sequence[Float[Tensor, "N H U"]]
"""A softmax policy: one logit for each utterance in each history, one tensor a turn."""


@dataclass(frozen=True, slots=True)
class TabularStep:
    """The dynamics D(ω) of one turn, Eq. 1 with s_o = h.

    Attributes:
      reward: r(h, ω, u).
      answer: p(o | h, ω, u); with u it makes h′.
      drift: p(ω′ | h, ω, u, o).
    """

    reward: Float[Tensor, "N H W U"]
    answer: Float[Tensor, "N H W U O"]
    drift: Float[Tensor, "N H W U O W"]


@dataclass(frozen=True, slots=True)
class TabularPamdp:
    """N problems of equal size; every dialogue ends after the last turn.

    Attributes:
      start: p(ω_0).
      turns: the dynamics of turns 0..T−1.
      gamma: γ.
    """

    start: Float[Tensor, "N W"]
    turns: tuple[TabularStep, ...]
    gamma: float


@dataclass(frozen=True, slots=True)
class Critics:
    """A pair of critics, one tensor a turn for turns 0..T; those of turn T are 0.

    Attributes:
      v_h: V_φ(h).
      v_hw: V_ξ(h, ω).
    """

    v_h: tuple[Float[Tensor, "N H"], ...]
    v_hw: tuple[Float[Tensor, "N H W"], ...]


@dataclass(frozen=True, slots=True)
class Solution:
    """Exact quantities of one policy; per turn 0..T−1, values also for turn T, where they are 0.

    Attributes:
      policy: π(u|h).
      occupancy: P(h_t = h, ω_t = ω).
      belief: p(ω|h); 0 where h has no probability.
      v: V(h).
      matched: W(h, ω) = Σ_u π(u|h)·(r + γ·Σ p(h′|h, ω, u)·V(h′)), Eq. 5 to the letter.
      full: X(h, ω) = E[return to go | h, ω], UAAC's critic.
      q: Q(h, u).
    """

    policy: tuple[Float[Tensor, "N H U"], ...]
    occupancy: tuple[Float[Tensor, "N H W"], ...]
    belief: tuple[Float[Tensor, "N H W"], ...]
    v: tuple[Float[Tensor, "N H"], ...]
    matched: tuple[Float[Tensor, "N H W"], ...]
    full: tuple[Float[Tensor, "N H W"], ...]
    q: tuple[Float[Tensor, "N H U"], ...]

    def critics(self, oracle: Oracle) -> Critics:
        """The exact critics, with the matched or the full oracle value as V_ξ."""
        return Critics(self.v, self.matched if oracle == "matched" else self.full)


def replicate(pamdp: TabularPamdp, runs: int) -> TabularPamdp:
    """One problem as `runs` equal problems, without copying."""

    def repeat(tensor: Tensor) -> Tensor:
        return tensor.expand(runs, *tensor.shape[1:])

    turns = tuple(TabularStep(repeat(turn.reward), repeat(turn.answer), repeat(turn.drift)) for turn in pamdp.turns)
    return TabularPamdp(repeat(pamdp.start), turns, pamdp.gamma)


def uniform(pamdp: TabularPamdp) -> list[Float[Tensor, "N H U"]]:
    """Logits of the uniform policy."""
    return [torch.zeros_like(turn.reward[:, :, 0]) for turn in pamdp.turns]


def by_answer(values: Float[Tensor, "N H2 *rest"], turn: TabularStep) -> Float[Tensor, "N H U O *rest"]:
    """Values of the next turn's histories, by this turn's history, utterance and answer."""
    n, h, _, u, o = turn.answer.shape
    return values.reshape(values.shape[0], h, u, o, *values.shape[2:]).expand(n, h, u, o, *values.shape[2:])


def occupancies(pamdp: TabularPamdp, policy: Sequence[Float[Tensor, "N H U"]]) -> tuple[Float[Tensor, "N H W"], ...]:
    """P(h_t = h, ω_t = ω) of every turn, by propagation from p(ω_0)."""
    occupancy = [pamdp.start.unsqueeze(1)]
    for turn, pi in zip(pamdp.turns[:-1], policy, strict=False):
        onward = torch.einsum("nhw,nhu,nhwuo,nhwuoz->nhuoz", occupancy[-1], pi, turn.answer, turn.drift)
        occupancy.append(onward.flatten(1, 3))
    return tuple(occupancy)


def objective(pamdp: TabularPamdp, logits: Logits) -> Float[Tensor, " N"]:
    """Expected return, Eq. 4, forward in time and without any value function.

    J = Σ_t γ^t · E[r_t]
    """
    policy = [each.softmax(-1) for each in logits]
    total = torch.zeros_like(pamdp.start[:, 0])
    for t, (turn, pi, occ) in enumerate(zip(pamdp.turns, policy, occupancies(pamdp, policy), strict=True)):
        total = total + pamdp.gamma**t * torch.einsum("nhw,nhu,nhwu->n", occ, pi, turn.reward)
    return total


def solve(pamdp: TabularPamdp, logits: Logits) -> Solution:
    """All exact quantities of a policy: occupancy and belief forward in time, values backward."""
    policy = tuple(each.softmax(-1) for each in logits)
    occupancy = occupancies(pamdp, policy)
    belief = tuple(occ / occ.sum(-1, keepdim=True).clamp(min=torch.finfo(occ.dtype).tiny) for occ in occupancy)
    last = pamdp.turns[-1].answer
    n, h, w, u, o = last.shape
    v, matched = [last.new_zeros(n, h * u * o)], [last.new_zeros(n, h * u * o, w)]
    full, q = [matched[0]], list[Tensor]()
    for turn, pi, b in zip(reversed(pamdp.turns), reversed(policy), reversed(belief), strict=True):
        v_next, full_next = by_answer(v[0], turn), by_answer(full[0], turn)
        q_w = turn.reward + pamdp.gamma * torch.einsum("nhwuo,nhuo->nhwu", turn.answer, v_next)
        q_x = turn.reward + pamdp.gamma * torch.einsum("nhwuo,nhwuoz,nhuoz->nhwu", turn.answer, turn.drift, full_next)
        q.insert(0, torch.einsum("nhw,nhwu->nhu", b, q_w))
        matched.insert(0, torch.einsum("nhu,nhwu->nhw", pi, q_w))
        full.insert(0, torch.einsum("nhu,nhwu->nhw", pi, q_x))
        v.insert(0, torch.einsum("nhu,nhu->nh", pi, q[0]))
    return Solution(policy, occupancy, belief, tuple(v), tuple(matched), tuple(full), tuple(q))


def policy_gradient(pamdp: TabularPamdp, solution: Solution) -> tuple[Float[Tensor, "N H U"], ...]:
    """Exact gradient with respect to the logits, by the policy gradient theorem.

        ∂J/∂θ(h, u) = γ^t · P(h) · π(u|h) · (Q(h, u) − V(h))

    Eq. 9 lacks the weights γ^t; without them this is the gradient of something else than J.
    """
    gradients = []
    for t, (pi, occ, q) in enumerate(zip(solution.policy, solution.occupancy, solution.q, strict=True)):
        gradients.append(pamdp.gamma**t * occ.sum(-1).unsqueeze(-1) * pi * (q - solution.v[t].unsqueeze(-1)))
    return tuple(gradients)


def optimal_return(pamdp: TabularPamdp) -> Float[Tensor, " N"]:
    """The largest J of any policy of the history, Eq. 4, by dynamic programming over beliefs.

    p(ω|h) does not depend on the policy once h is given, so the beliefs of the uniform policy serve for all.
    """
    solution = solve(pamdp, uniform(pamdp))
    v = torch.zeros_like(solution.v[-1])
    for turn, belief in zip(reversed(pamdp.turns), reversed(solution.belief), strict=True):
        after = pamdp.gamma * torch.einsum("nhwuo,nhuo->nhwu", turn.answer, by_answer(v, turn))
        v = torch.einsum("nhw,nhwu->nhu", belief, turn.reward + after).amax(-1)
    return v[:, 0]
