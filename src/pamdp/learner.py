"""One learner for offline and online: stored transitions in, a better actor and better critics out.

Owns the update: values, targets, advantages, the policy gradient with its leash (eqs. 6, 9, 12, 14). Knows nothing of
language models: everything it needs is features, actions and rewards, so an epoch takes seconds. It works on the CPU,
wherever the backbone is: its operations are many and small, and what they give is asked for at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pamdp.config import RLConfig
from pamdp.errors import JudgeError
from pamdp.models.actor import Actor
from pamdp.models.actor_delta import make_actor_delta
from pamdp.models.critics import DualCritic
from pamdp.registry import ADVANTAGES
from pamdp.rl.advantages import compute_advantage
from pamdp.rl.checks import AdvantageInputs
from pamdp.rl.losses import actor_loss, critic_loss, gaussian_kl, gaussian_log_prob, reply_log_ratio, surrogate_loss
from pamdp.rl.odc import OptimalDualCritic, gaussian_score_sq, leave_one_out_control
from pamdp.rl.returns import explained_variance, literal_target, td_target
from pamdp.transitions import Batch, log_drawn


class Learner:
    """Learns a change of an actor, and critics.

    Args:
      reference: the cloned actor q_b, which the leash holds to; its σ must be set. It is never changed.
      critics: V_φ and V_ξ; trained in place.
      config: settings of the update.

    Attributes:
      delta: what is learned of A1; `actor()` gives the actor that it makes of the reference.
    """

    def __init__(self, reference: Actor, critics: DualCritic, config: RLConfig) -> None:
        self.reference, self.critics, self.config = reference, critics, config
        self.delta = make_actor_delta(config.moves, reference, config.components)
        self.actor_optimizer = torch.optim.AdamW(self.delta.parameters(), config.lr_actor, weight_decay=0.0)
        self.critic_optimizer = torch.optim.AdamW(critics.parameters(), config.lr_critic, weight_decay=0.01)
        self.odc = OptimalDualCritic(safe=config.advantage == "odc_safe", controls=int(config.leave_one_out))
        self.updates = 0

    def actor(self) -> Actor:
        """The actor as it is now: a copy of the reference, changed by what was learned."""
        return self.delta.applied()

    def fit(self, batch: Batch) -> None:
        """Take units and directions of states from the first batch; needed once, before the first update."""
        self.critics.v_h.whiten.fit(batch.h)
        self.critics.v_hw.whiten.fit(batch.hw)
        self.delta.fit(batch.h)

    def update(self, batch: Batch, generator: torch.Generator) -> list[dict[str, float]]:
        """`epochs` passes over a batch; the actor moves every f_a critic updates.

        Masked transitions are counted and left out: nothing else depends on them.

        Returns:
          For each pass: reward, kl, losses, explained variance of both critics, spread of the advantage, share masked.

        Raises:
          JudgeError: every transition is masked.
        """
        if not bool(batch.kept.any()):
            raise JudgeError("the judge failed on every reply of this round; there is nothing to learn from")
        masked = 1 - float(batch.kept.float().mean())
        batch = batch.pick(batch.kept)
        # One order for all passes: noise that changes from pass to pass would average out, and control for nothing.
        order = torch.randperm(int(batch.acts.sum()), generator=generator) if self.config.permute else None
        return [{**self._epoch(batch, generator, order), "masked": masked} for _ in range(self.config.epochs)]

    def _epoch(self, batch: Batch, generator: torch.Generator, shuffled: Tensor | None) -> dict[str, float]:
        log: dict[str, list[float]] = defaultdict(list)
        inputs = self.inputs(batch)
        delta = self.advantages(batch, inputs, shuffled)
        score_sq = self._score_sq(batch)
        self.odc.update(inputs, score_sq, batch.kept, residuals_after(batch, inputs))
        order = torch.randperm(len(batch.state), generator=generator)
        for chunk in torch.split(order, self.config.batch_size):
            part = batch.pick(chunk).own()
            log["critic_loss"].append(self._critic_step(part))
            self.updates += 1
            if self.updates % self.config.actor_every == 0:
                for name, value in self._actor_step(part, delta[chunk]).items():
                    log[name].append(value)
        kept = batch.kept
        log["reward"].append(float(batch.reward[kept].mean()))
        log["advantage_sd"].append(_spread(delta[kept]))
        td = td_target(inputs.reward, inputs.discount, inputs.v_h_next)
        log["explained_variance_h"].append(explained_variance(inputs.v_h, td, kept))
        log["explained_variance_hw"].append(explained_variance(inputs.v_hw, td, kept))
        return {name: sum(values) / len(values) for name, values in log.items()}

    @torch.no_grad()
    def values(self, batch: Batch) -> AdvantageInputs:
        """Rewards and the present critics' values before and after every transition."""
        v_h, v_hw = self.critics.v_h(batch.h), self.critics.v_hw(batch.hw)
        ended = batch.after < 0
        discount = torch.where(ended, 0.0, self.config.gamma)
        after = batch.after.clamp_min(0)
        return AdvantageInputs(
            batch.reward, discount, v_h[batch.state], torch.where(ended, 0.0, v_h[after]),
            v_hw[batch.state], torch.where(ended, 0.0, v_hw[after]),
        )  # fmt: skip

    def inputs(self, batch: Batch) -> AdvantageInputs:
        """What the advantage estimators need: values and, where it is wanted, the leave-one-out control."""
        inputs = self.values(batch)
        if not self.config.leave_one_out:
            return inputs
        control = _leave_one_out(batch, td_target(inputs.reward, inputs.discount, inputs.v_h_next), inputs.v_h)
        return replace(inputs, controls=(control,))

    def advantages(self, batch: Batch, inputs: AdvantageInputs, shuffled: Tensor | None = None) -> Tensor:
        """Â of every transition, [n]; the leave-one-out control takes what samples of one state have in common.

        SHUFFLED: control: in this order they stand beside the transitions that teach the actor.
        """
        name = self.config.advantage
        share = min(1.0, self.config.batch_size / len(batch.state))
        coefficients = self.odc.coefficients(share) if name in ("odc", "odc_safe") else None
        delta = compute_advantage(name, inputs, beta=self.config.beta, coefficients=coefficients)
        if self.config.leave_one_out and coefficients is None:
            # The mean advantage of a state's other samples: independent of this sample's action, so it cannot bias.
            delta = delta - _leave_one_out(batch, delta, torch.zeros_like(delta))
        if shuffled is not None:
            acts = batch.acts.nonzero()[:, 0]
            delta = delta.index_put((acts,), delta[acts[shuffled]])
        if self.config.normalize:
            spread = _spread(delta[batch.acts])
            delta = delta / spread if spread > 1e-6 else delta  # equal advantages, or only one, have no unit
        return delta

    def _critic_step(self, part: Batch) -> float:
        inputs = self.values(part)
        v_h, v_hw = self.critics.v_h(part.h[part.state]), self.critics.v_hw(part.hw[part.state])
        if self.config.paper_literal:
            target_h = literal_target(inputs.reward, inputs.v_h, inputs.v_h_next)
            target_hw = literal_target(inputs.reward, inputs.v_hw, inputs.v_hw_next)
        else:
            matched = ADVANTAGES[self.config.advantage].oracle_target == "matched"
            target_h = td_target(inputs.reward, inputs.discount, inputs.v_h_next)
            target_hw = target_h if matched else td_target(inputs.reward, inputs.discount, inputs.v_hw_next)
        loss = critic_loss(
            v_h, target_h, v_hw, target_hw, kind="l1" if self.config.paper_literal else "mse", mask=part.kept
        )
        self.critic_optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.critic_optimizer.step()
        return float(loss.detach())

    def _actor_step(self, part: Batch, delta: Tensor) -> dict[str, float]:
        sigma, clip = float(self.reference.sigma), self.config.clip
        features = part.h[part.state]
        mean = self.delta(features)
        with torch.no_grad():
            cloned = self.reference(features)
        kl = gaussian_kl(mean, cloned, sigma)
        if part.score is None:
            log_prob, old = gaussian_log_prob(part.action, mean, sigma), log_drawn(part)
        else:
            log_prob, old = reply_log_ratio(part.score, mean, part.mean), torch.zeros_like(part.reward)
        if clip is None:
            loss = actor_loss(log_prob, delta, kl, self.config.kl, part.acts)
        else:
            gain = surrogate_loss(log_prob, old, delta, clip, part.acts)
            loss = gain + self.config.kl * kl[part.kept].mean()
        self.actor_optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.delta.parameters(), 1.0)
        self.actor_optimizer.step()
        return {"actor_loss": float(loss.detach()), "kl": float(kl.mean().detach())}

    def _score_sq(self, batch: Batch) -> Tensor:
        """Squared norm of what a transition's advantage is multiplied with in the gradient of A1, [n]."""
        states, sigma = self.reference.whiten(batch.h)[batch.state], float(self.reference.sigma)
        if batch.score is None:
            # A weight only: of actions that other policies drew it is off by their σ, which costs variance and no bias.
            return gaussian_score_sq(states, batch.action, batch.mean, sigma)
        return gaussian_score_sq(states, batch.score, torch.zeros_like(batch.score), 1.0)

    def state(self) -> Mapping[str, float]:
        """Numbers beside tensors and optimizers that a resumed run needs."""
        return {"updates": float(self.updates), **{f"odc.{k}": v for k, v in self.odc.state_dict().items()}}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take up a checkpoint's numbers."""
        self.updates = int(state["updates"])
        self.odc.load_state_dict({k[4:]: v for k, v in state.items() if k.startswith("odc.")})


def residuals_after(batch: Batch, inputs: AdvantageInputs) -> tuple[Tensor, Tensor]:
    """Mean squared TD errors of V_φ and V_ξ at h′, each [n]; 0 where the dialogue ended or nobody replied to h′."""
    size, counts = len(batch.h), batch.kept.to(inputs.reward)
    replies = counts.new_zeros(size).index_add(0, batch.state, counts).clamp_min(1)
    ended, after = batch.after < 0, batch.after.clamp_min(0)
    out = []
    for name in ("a2c", "uaac"):
        square = compute_advantage(name, inputs).square() * counts
        mean = counts.new_zeros(size).index_add(0, batch.state, square) / replies
        out.append(torch.where(ended, 0.0, mean[after]))
    return out[0], out[1]


def _spread(values: Tensor) -> float:
    """Standard deviation; 0 for a single value."""
    return float(values.std()) if len(values) > 1 else 0.0


def _leave_one_out(batch: Batch, target: Tensor, value: Tensor) -> Tensor:
    """leave_one_out_control for transitions in any order, grouped by state; 0 where a state has one sample, [n]."""
    order = torch.argsort(batch.state, stable=True)
    state = batch.state[order]
    sizes = torch.bincount(state)
    # One row for each state, one column for each of its samples; what is beyond a state's own does not count.
    place = torch.arange(len(state), device=state.device) - (sizes.cumsum(0) - sizes)[state]
    shape = (len(sizes), max(2, int(sizes.max())))
    table = [x.new_zeros(shape) for x in (target, value, batch.kept)]
    for wide, x in zip(table, (target, value, batch.kept), strict=True):
        wide[state, place] = x[order]
    out = torch.zeros_like(target)
    out[order] = leave_one_out_control(*table)[state, place]
    return out
