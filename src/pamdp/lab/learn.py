"""Actor-critic learning on tabular PAMDPs: critics and softmax policies learned as tables from sampled dialogues.

Owns one learner for every method; a comparison changes the method and nothing else, and methods that are given one
seed start from the same random numbers. N independent runs are learned side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pamdp.lab.exact import ExactEstimator
from pamdp.lab.sampling import Dialogues, log_probs, sample, scores_sq
from pamdp.lab.tabular import Critics, TabularPamdp, objective, uniform
from pamdp.rl.advantages import compute_advantage
from pamdp.rl.checks import AdvantageInputs
from pamdp.rl.losses import actor_loss
from pamdp.rl.odc import OptimalDualCritic
from pamdp.rl.returns import td_target


class LearnedAdvantage:
    """One method with tabular critics (and coefficients, for ODC) that are learned from the dialogues it is shown.

    Args:
      pamdp: only its sizes and γ are used.
      method: the advantage and what V_ξ is regressed on.
      slowest: lower bound of the critics' step size, which otherwise is one over the number of visits.
    """

    def __init__(self, pamdp: TabularPamdp, method: ExactEstimator, slowest: float = 0.0) -> None:
        self.method, self.slowest = method, slowest
        self.turns = len(pamdp.turns)
        self.batches = 0
        runs, profiles = pamdp.start.shape
        step = pamdp.turns[0].answer.shape[3] * pamdp.turns[0].answer.shape[4]
        sizes = [step**t for t in range(self.turns + 1)]
        self.v_h = [pamdp.start.new_zeros(runs, size) for size in sizes]
        self.v_hw = [pamdp.start.new_zeros(runs, size, profiles) for size in sizes]
        self._seen_h = [torch.zeros_like(v) for v in self.v_h]
        self._seen_hw = [torch.zeros_like(v) for v in self.v_hw]
        self._discount = torch.tensor([pamdp.gamma] * (self.turns - 1) + [0.0], dtype=torch.float64)
        is_odc = method.advantage in ("odc", "odc_safe")
        self._odc = [OptimalDualCritic(safe=method.advantage == "odc_safe") for _ in range(runs if is_odc else 0)]

    @property
    def critics(self) -> Critics:
        """The tables, as the exact part of the lab takes them."""
        return Critics(tuple(self.v_h), tuple(self.v_hw))

    def coefficients(self, size: float = 1.0) -> Float[Tensor, "N 2"] | None:
        """(c1, c2) of every run, from the dialogues so far; None for a method that has none.

        SIZE is that of the batch that they are for, in batches like those learned from.
        """
        if not self._odc:
            return None
        share = size * max(1 / max(self.batches, 1), self.slowest)
        return torch.tensor([odc.coefficients(share) for odc in self._odc], dtype=torch.float64)

    def inputs(self, dialogues: Dialogues) -> AdvantageInputs:
        """What the estimators see of the dialogues, with the present critics."""
        run = torch.arange(self.v_h[0].shape[0]).unsqueeze(1)
        v_h = [v[run, dialogues.history[..., t]] for t, v in enumerate(self.v_h)]
        v_hw = [v[run, dialogues.history[..., t], dialogues.profile[..., t]] for t, v in enumerate(self.v_hw)]
        return AdvantageInputs(
            reward=dialogues.reward,
            discount=self._discount.expand_as(dialogues.reward),
            v_h=torch.stack(v_h[:-1], -1),
            v_h_next=torch.stack(v_h[1:], -1),
            v_hw=torch.stack(v_hw[:-1], -1),
            v_hw_next=torch.stack(v_hw[1:], -1),
        )

    def advantage(self, inputs: AdvantageInputs) -> Float[Tensor, "N B T"]:
        """The method's advantage, with coefficients from earlier dialogues only."""
        coefficients = self.coefficients()
        if coefficients is None:
            return compute_advantage(self.method.advantage, inputs)
        c1, c2 = (c[:, None, None].expand_as(inputs.reward) for c in coefficients.unbind(-1))
        return compute_advantage(self.method.advantage, inputs, coefficients=(c1, c2))

    def update(self, dialogues: Dialogues, inputs: AdvantageInputs, score_sq: Float[Tensor, "N B T"]) -> None:
        """Learn from dialogues after their advantages were taken: first the coefficients, then the critics."""
        residuals = _residuals_after(inputs)
        for run, odc in enumerate(self._odc):
            odc.update(_of_run(inputs, run), score_sq[run], residuals=(residuals[0][run], residuals[1][run]))
        self.batches += 1
        target_h, target_hw = self.targets(inputs)
        for t in range(self.turns):
            h, w = dialogues.history[..., t], dialogues.profile[..., t]
            self._fit(self.v_h[t], self._seen_h[t], h, target_h[..., t])
            profiles = self.v_hw[t].shape[-1]
            self._fit(self.v_hw[t].flatten(1), self._seen_hw[t].flatten(1), h * profiles + w, target_hw[..., t])

    def targets(self, inputs: AdvantageInputs) -> tuple[Float[Tensor, "N B T"], Float[Tensor, "N B T"]]:
        """What V_φ and V_ξ are regressed on."""
        onward = inputs.v_h_next if self.method.oracle == "matched" else inputs.v_hw_next
        reward, discount = inputs.reward, inputs.discount
        return td_target(reward, discount, inputs.v_h_next), td_target(reward, discount, onward)

    def _fit(self, table: Tensor, seen: Tensor, index: Int[Tensor, "N B"], target: Float[Tensor, "N B"]) -> None:
        """Move the visited entries, in place, towards the mean target of the batch."""
        count = torch.zeros_like(table).scatter_add_(1, index, torch.ones_like(target))
        mean = torch.zeros_like(table).scatter_add_(1, index, target) / count.clamp(min=1)
        seen += count
        step = torch.where(count > 0, (count / seen.clamp(min=1)).clamp(min=self.slowest), 0.0)
        table += step * (mean - table)


def _residuals_after(inputs: AdvantageInputs) -> tuple[Float[Tensor, "N B T"], Float[Tensor, "N B T"]]:
    """Squared TD errors of V_φ and V_ξ one turn later; 0 at the last turn, where nothing is bootstrapped."""
    v_h, v_hw = (compute_advantage(name, inputs)[..., 1:].square() for name in ("a2c", "uaac"))
    return F.pad(v_h, (0, 1)), F.pad(v_hw, (0, 1))


def _of_run(inputs: AdvantageInputs, run: int) -> AdvantageInputs:
    i = inputs
    return AdvantageInputs(i.reward[run], i.discount[run], i.v_h[run], i.v_h_next[run], i.v_hw[run], i.v_hw_next[run])


def watch(
    pamdp: TabularPamdp,
    method: ExactEstimator,
    policy: Sequence[Float[Tensor, "N H U"]],
    *,
    batches: int,
    episodes: int,
    seed: int,
) -> LearnedAdvantage:
    """Critics and coefficients learned from `batches` x `episodes` dialogues of a policy that stays as it is."""
    generator = torch.Generator().manual_seed(seed)
    learned = LearnedAdvantage(pamdp, method)
    for _ in range(batches):
        dialogues = sample(pamdp, policy, episodes, generator)
        learned.update(dialogues, learned.inputs(dialogues), scores_sq(policy, dialogues))
    return learned


def learn(
    pamdp: TabularPamdp,
    method: ExactEstimator,
    *,
    iterations: int,
    episodes: int,
    rate: float,
    seed: int,
    slowest: float = 0.1,
) -> Float[Tensor, "iterations N"]:
    """Policy gradient from the uniform policy, Eq. 12 with γ^t and without a leash; exact J after each iteration.

    Args:
      rate: step size of the logits, for the mean gradient over the batch's dialogues.
      slowest: lower bound of the critics' step size, because the policy moves.
    """
    generator = torch.Generator().manual_seed(seed)
    learned = LearnedAdvantage(pamdp, method, slowest)
    logits = uniform(pamdp)
    weight = pamdp.gamma ** torch.arange(len(logits), dtype=torch.float64)
    curve = []
    for _ in range(iterations):
        policy = [each.softmax(-1) for each in logits]
        dialogues = sample(pamdp, policy, episodes, generator)
        inputs = learned.inputs(dialogues)
        delta = weight * learned.advantage(inputs)
        leaves = [each.requires_grad_() for each in logits]
        log_prob = log_probs(leaves, dialogues)
        loss = actor_loss(log_prob, delta, torch.zeros_like(log_prob), kl_coef=0.0)
        gradients = torch.autograd.grad(loss * (log_prob.numel() / episodes), leaves)
        logits = [(leaf - rate * gradient).detach() for leaf, gradient in zip(leaves, gradients, strict=True)]
        learned.update(dialogues, inputs, scores_sq(policy, dialogues))
        curve.append(objective(pamdp, logits))
    return torch.stack(curve)
