"""Behaviour cloning, eq. 17: the planner (and by choice LoRA or the backbone) learns to write the references.

Owns the gradient step; examples.py makes what is learned from, and fit.py fits A1 anew when the steps are done. Each
turn is a branch after one clean pass over its dialogue (models/packing.py). Beside the paper's cross-entropy an action
posterior teaches what actions mean: it encodes a reply into an action that must reproduce it, for preferred and
rejected replies alike, and A1 is drawn towards the posterior of the preferred one (docs/decisions.md).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pamdp.config import CloneConfig
from pamdp.models.packing import Branch, branch_log_probs
from pamdp.models.policy import Policy
from pamdp.models.posterior import Posterior
from pamdp.rl.losses import cloning_loss
from pamdp.train.examples import Example


class Cloner:
    """The cloning step over examples; owns the posterior and the optimizer.

    Args:
      policy: its planner (and adapter or backbone) is trained in place.
      config: settings.
    """

    def __init__(self, policy: Policy, config: CloneConfig) -> None:
        assert policy.planner is not None
        self.policy, self.config, self.step = policy, config, 0
        self.planner = policy.planner
        self.posterior = Posterior(policy.backbone.d, self.planner.actor.a1.out_features)
        self.backbone_parameters = [p for p in policy.backbone.model.parameters() if p.requires_grad]
        groups = [{"params": [*self.planner.parameters(), *self.posterior.parameters()], "lr": config.lr}]
        if self.backbone_parameters:
            groups.append({"params": self.backbone_parameters, "lr": config.lr_backbone})
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        self.base = [float(group["lr"]) for group in self.optimizer.param_groups]

    def update(
        self, examples: Sequence[Example], rng: random.Random, generator: torch.Generator, total: int
    ) -> dict[str, float]:
        """One optimizer step over some examples.

        Args:
          total: steps of the whole run; the learning rate reaches zero after so many.

        Returns:
          The terms of the loss, each its mean over the examples that have it, and the gradient's norm before clipping.
        """
        self.optimizer.zero_grad()
        log: dict[str, list[float]] = defaultdict(list)
        for example in examples:
            terms = self.loss(example, rng, generator)
            torch.autograd.backward(sum(terms.values(), torch.zeros(())) / len(examples))
            for name, value in terms.items():
                log[name].append(float(value.detach()))
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip)
        # Linear warm-up over five steps, then linear to zero.
        scale = min(1.0, (self.step + 1) / 5) * max(0.0, 1 - self.step / total)
        for group, lr in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = lr * scale
        self.optimizer.step()
        self.step += 1
        return {**{k: sum(v) / len(v) for k, v in log.items()}, "gradient_norm": float(norm)}

    def loss(self, example: Example, rng: random.Random, generator: torch.Generator) -> dict[str, Tensor]:
        """Terms of the loss of one example: `nll` (eq. 17), `posterior_nll`, `match`."""
        prefix = self.policy.prefix(example.messages)
        encoded, turns = prefix.encoded, [t for t, group in enumerate(example.replies) if group]
        states = example.states
        if states is None:
            states = torch.stack([self.policy.features(prefix, t) for t in range(len(encoded.heads))])
        mean = self.planner.actor(states)
        own: list[Branch] = []
        meant: list[Branch] = []
        match: list[Tensor] = []
        for t, meaning in zip(turns, example.meanings, strict=True):
            # Context dropout: without the earlier turns only the action can tell the reply who is being talked to.
            hide = t > 0 and rng.random() < self.config.context_dropout
            hidden = (encoded.users[0][0], encoded.users[t][0]) if hide else None
            replies = example.replies[t]
            m = self.posterior(meaning)
            if example.cloned:
                match.append((mean[t] - m[0].detach()).square().mean())
            if not self.config.posterior or (example.cloned and rng.random() < 0.5):
                own.append(Branch(encoded.heads[t], replies[0], self._inject(mean[t], generator), hidden=hidden))
                continue
            # A pair is there for the contrast of its two replies; a dialogue's turns are many.
            for which in [rng.randrange(len(replies))] if example.cloned else range(len(replies)):
                meant.append(Branch(encoded.heads[t], replies[which], self._inject(m[which], generator), hidden=hidden))
        with self.policy.backbone.adapter(self.policy.adapter):
            scored = branch_log_probs(self.policy.backbone, prefix, [*own, *meant])
        terms = {"nll": _cross_entropy(scored[: len(own)])} if own else {}
        if meant:
            terms["posterior_nll"] = _cross_entropy(scored[len(own) :])
        if match and self.config.posterior:
            terms["match"] = self.config.match * torch.stack(match).mean()
        return terms

    def _inject(self, action: Tensor, generator: torch.Generator) -> Tensor:
        """Embeddings of a noisy action, so that replies change smoothly with actions and survive exploration."""
        noise = torch.randn(action.shape, generator=generator).to(action)
        rms = action.detach().square().mean().sqrt() if not self.config.posterior else 1.0
        return torch.as_tensor(self.planner.injector(action + self.config.noise * rms * noise))


def _cross_entropy(log_probs: Sequence[Tensor]) -> Tensor:
    flat = torch.cat(list(log_probs))
    return cloning_loss(flat, torch.ones_like(flat, dtype=torch.bool))
