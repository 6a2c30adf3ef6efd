"""Behaviour cloning, eq. 17: the planner (and by choice LoRA or the backbone) learns to write the references.

Owns the cloning step. Each turn is a branch after one clean pass over its dialogue (models/packing.py). Beside the
paper's cross-entropy an action posterior teaches what actions mean: it encodes a reply into an action that must
reproduce it, for preferred and rejected replies alike, and A1 is drawn towards the posterior of the preferred one
(docs/decisions.md).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pamdp.config import CloneConfig
from pamdp.models.packing import Branch, branch_log_probs, reply_features
from pamdp.models.policy import Policy, path
from pamdp.models.posterior import Posterior
from pamdp.rl.losses import cloning_loss
from pamdp.types import Dialogue


@dataclass(frozen=True, slots=True)
class Example:
    """A dialogue with what never changes while cloning: features of states and of replies.

    Attributes:
      states: H(h_t) of every turn, [turns, width]; None where the gradient must reach H.
      replies: token ids of the preferred reply and, where there is one, of the rejected one.
      meanings: features of those replies for the posterior.
    """

    dialogue: Dialogue
    states: Tensor | None
    replies: list[list[list[int]]]
    meanings: list[Tensor]


class Cloner:
    """The cloning step over dialogues; owns the posterior and the optimizer.

    Args:
      policy: its planner (and adapter or backbone) is trained in place.
      config: settings.
      total: optimizer steps of the whole run, for the schedule.
    """

    def __init__(self, policy: Policy, config: CloneConfig, total: int) -> None:
        assert policy.planner is not None
        self.policy, self.config, self.total, self.step = policy, config, total, 0
        self.planner = policy.planner
        self.posterior = Posterior(policy.backbone.d, self.planner.actor.a1.out_features)
        self.backbone_parameters = [p for p in policy.backbone.model.parameters() if p.requires_grad]
        groups = [{"params": [*self.planner.parameters(), *self.posterior.parameters()], "lr": config.lr}]
        if self.backbone_parameters:
            groups.append({"params": self.backbone_parameters, "lr": config.lr_backbone})
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        self.states: Tensor | None = None
        self.base = [float(group["lr"]) for group in self.optimizer.param_groups]

    def prepare(self, dialogues: Sequence[Dialogue], progress: Callable[[int], None] | None = None) -> list[Example]:
        """Examples with features from the policy as it is; fits the whitenings."""
        examples = []
        for dialogue in dialogues:
            examples.append(self._example(dialogue))
            if progress is not None:
                progress(1)
        states = torch.cat([e.states for e in examples if e.states is not None])
        self.planner.actor.whiten.fit(states)
        self.states = states if self.policy.fixed_features(self.config.backbone, self.config.lora_layers) else None
        self.posterior.whiten.fit(torch.cat([m for e in examples for m in e.meanings]))
        if self.states is None:
            examples = [Example(e.dialogue, None, e.replies, e.meanings) for e in examples]
        return examples

    @torch.no_grad()
    def _example(self, dialogue: Dialogue) -> Example:
        chat = self.policy.backbone.chat
        prefix = self.policy.prefix(path(dialogue))
        replies = [
            # Without a preferred reply there is nothing to clone: the first of a turn's replies is the one that is.
            [chat.reply(text)[: self.config.max_reply] for text in (turn.preferred, turn.rejected) if text]
            if turn.preferred
            else []
            for turn in dialogue.turns
        ]
        branches = [Branch(prefix.encoded.heads[t], ids) for t, group in enumerate(replies) for ids in group]
        with self.policy.backbone.adapter(self.policy.adapter):
            flat = iter(reply_features(self.policy.backbone, prefix, branches, self.policy.readout.layer))
        states = torch.stack([self.policy.features(prefix, t) for t in range(len(dialogue.turns))])
        return Example(dialogue, states, replies, [torch.stack([next(flat) for _ in g]) for g in replies if g])

    def update(self, examples: Sequence[Example], rng: random.Random, generator: torch.Generator) -> dict[str, float]:
        """One optimizer step over some dialogues."""
        self.optimizer.zero_grad()
        log: dict[str, list[float]] = defaultdict(list)
        for example in examples:
            terms = self.loss(example, rng, generator)
            (sum(terms.values(), torch.zeros(())) / len(examples)).backward()  # type: ignore[no-untyped-call]
            for name, value in terms.items():
                log[name].append(float(value.detach()))
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip)
        # Linear warm-up over five steps, then linear to zero.
        scale = min(1.0, (self.step + 1) / 5) * max(0.0, 1 - self.step / self.total)
        for group, lr in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = lr * scale
        self.optimizer.step()
        self.step += 1
        return {**{k: sum(v) / len(v) for k, v in log.items()}, "gradient_norm": float(norm)}

    def loss(self, example: Example, rng: random.Random, generator: torch.Generator) -> dict[str, Tensor]:
        """Terms of the loss of one dialogue: `nll` (eq. 17), `posterior_nll`, `match`."""
        prefix = self.policy.prefix(path(example.dialogue))
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
            own.append(Branch(encoded.heads[t], example.replies[t][0], self._inject(mean[t], generator), hidden))
            if self.config.posterior:
                m = self.posterior(meaning)
                which = rng.randrange(len(example.replies[t]))
                inject = self._inject(m[which], generator)
                meant.append(Branch(encoded.heads[t], example.replies[t][which], inject, hidden))
                match.append((mean[t] - m[0].detach()).square().mean())
        with self.policy.backbone.adapter(self.policy.adapter):
            scored = branch_log_probs(self.policy.backbone, prefix, [*own, *meant])
        terms = {"nll": _cross_entropy(scored[: len(own)])}
        if meant:
            terms["posterior_nll"] = _cross_entropy(scored[len(own) :])
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
