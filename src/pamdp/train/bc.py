"""Behaviour cloning, eq. 17: the planner (and by choice LoRA or the backbone) learns to write the references.

Owns the cloning step. Each turn is a branch after one clean pass over its dialogue (models/packed_branches.py). Where
actions shift hidden states, a reply is learned under the action that means it (train/steering.py), preferred and
rejected replies alike: the same history is written on in two ways, and only the action says which (docs/decisions.md).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from pamdp.config import CloneConfig
from pamdp.models.features import FeatureStore
from pamdp.models.packed_branches import Branch
from pamdp.models.policy import Policy
from pamdp.models.prefix import Prefix
from pamdp.rl.losses import cloning_loss
from pamdp.train.examples import CloneExample, prepare
from pamdp.train.master_weights import MasterWeights
from pamdp.train.ridge import Ridge, fit_actor
from pamdp.train.steering import contrasts, coordinates, directions, sensitive
from pamdp.types import Dialogue, PreferencePair

SCORED = 128
"""Dialogues whose replies' scores give the directions: some 1,500 scores for 64 of them."""
WARM_UP = 5
"""Steps over which the learning rates rise; they then fall linearly to zero."""


class Cloner:
    """The cloning step over examples; owns the optimizer. Planner, and adapter or backbone, are trained in place.

    STORE keeps features across runs where nothing that learns can change them.
    """

    def __init__(self, policy: Policy, config: CloneConfig, store: FeatureStore | None = None) -> None:
        self.policy, self.config, self.step = policy, config, 0
        self.planner, self.steers = policy.trained_planner, False
        self.master = MasterWeights(p for p in policy.backbone.model.parameters() if p.requires_grad)
        groups = [{"params": list(self.planner.parameters()), "lr": config.lr}]
        if self.master.learned:
            groups.append({"params": self.master.learned, "lr": config.lr_backbone})
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
        self.base = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.fixed = policy.frozen_features
        self.late = not self.fixed and self.planner.injector is None and self.planner.steering is not None
        self.store = store if store is not None and self.fixed else FeatureStore(None)

    def prepare(
        self,
        dialogues: Sequence[Dialogue],
        pairs: Sequence[PreferencePair] = (),
        progress: Callable[[int], None] | None = None,
        done: bool = False,
    ) -> tuple[list[CloneExample], Ridge | None]:
        """Examples; fits the whitening and, where actions shift hidden states, their directions and A1.

        Where actions do nothing but shift and what is below them learns (`late`), that has to wait until it is DONE.

        Returns:
          The examples, and the regression that A1 is (None: A1 is for gradients to learn).
        """
        waiting = self.late and not done
        store = None if waiting else self.store
        examples = prepare(self.policy, dialogues, pairs, self.config.max_reply, store, progress)
        fitted = None if waiting else self._fit(examples)
        if self.fixed or done:
            return examples, fitted
        return [replace(example, states=None) for example in examples], fitted

    def _fit(self, examples: Sequence[CloneExample]) -> Ridge | None:
        actor, fitted = self.planner.actor, None
        actor.whiten.fit(torch.cat([e.states for e in examples if e.cloned and e.states is not None]))
        found = [c for e in examples for c in contrasts(e.meanings)]
        if self.planner.steering is not None and found:
            space = self._space(examples, torch.stack(found))
            fitted = fit_actor(actor, examples, space, self.config.gain)
            if fitted is not None:
                # Without the regression no state calls for any of these directions: actions would shift at random.
                self.planner.steering.copy_(self.config.steer * space)
        self.steers = fitted is not None
        return fitted

    def _space(self, examples: Sequence[CloneExample], found: Tensor) -> Tensor:
        """The directions that an action is a point of, [d_a, d]."""
        k = len(self.planner.steering) if self.planner.steering is not None else 0
        if self.config.directions == "contrasts":
            return directions(found, k)
        scores = []
        for example in [e for e in examples if e.cloned][:SCORED]:
            with torch.no_grad():
                prefix = self.policy.prefix(example.messages)
            replies = [(t, ids) for t, group in enumerate(example.replies) for ids in group]
            own = self.policy.sensitivities(prefix, replies)
            turns = torch.tensor([t for t, _ in replies])
            # What all replies to one history have in common says nothing of which one is said.
            scores += [own[turns == t] - own[turns == t].mean(0) for t in sorted({*turns.tolist()})]
        return sensitive(torch.cat(scores), k)

    def update(
        self, examples: Sequence[CloneExample], rng: random.Random, generator: torch.Generator, total: int
    ) -> dict[str, float]:
        """One optimizer step, of TOTAL, over some examples: `nll` (eq. 17) and the gradient's norm."""
        self.optimizer.zero_grad()
        losses = list[Tensor]()
        for example in examples:
            # A long pass is in part run again for its gradient: under the same adapter.
            with self.policy.active():
                loss = self.loss(example, rng, generator)
                torch.autograd.backward(loss / len(examples))
            self.master.take_gradients()
            losses.append(loss.detach())
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip)
        scale = min(1.0, (self.step + 1) / WARM_UP) * max(0.0, 1 - self.step / total)
        for group, lr in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = lr * scale
        self.optimizer.step()
        self.master.give_values()
        self.step += 1
        *found, norm = torch.stack([*losses, norm]).tolist()  # one copy from the device for all
        return {"nll": sum(loss / len(examples) for loss in found), "gradient_norm": norm}

    def loss(self, example: CloneExample, rng: random.Random, generator: torch.Generator) -> Tensor:
        """Negative log-likelihood of an example's replies, each under its noisy action, per token."""
        prefix = self.policy.prefix(example.messages)
        encoded, turns = prefix.encoded, [t for t, group in enumerate(example.replies) if group]
        mean = self._mean(example, prefix)
        branches: list[Branch] = []
        for t, meaning in zip(turns, example.meanings, strict=True):
            # Context dropout: without the earlier turns only the action can tell the reply who is being talked to.
            hide = t > 0 and rng.random() < self.config.context_dropout
            hidden = (encoded.users[0][0], encoded.users[t][0]) if hide else None
            lessons = [(0, None)] if mean is None else self._lessons(example.cloned, mean[t], meaning, rng)
            for which, action in lessons:
                noisy = None if action is None else action + self.config.noise * _noise(action, generator)
                branches.append(self.policy.branch(prefix, t, example.replies[t][which], noisy, hidden))
        flat = torch.cat(self.policy.log_probs(prefix, branches))
        return cloning_loss(flat, torch.ones_like(flat, dtype=torch.bool))

    def _mean(self, example: CloneExample, prefix: Prefix) -> Tensor | None:
        """Mean actions of all turns, [turns, d_a]; None where actions will get a meaning at the end only."""
        if self.late:
            return None
        states = example.states
        if states is None:
            states = torch.stack([self.policy.features(prefix, t) for t in range(len(prefix.encoded.heads))])
        return torch.as_tensor(self.planner.actor(states))

    def _lessons(self, cloned: bool, mean: Tensor, meaning: Tensor, rng: random.Random) -> Iterator[tuple[int, Tensor]]:
        """Which of a turn's replies are learned, under which actions."""
        if self.planner.steering is None or not self.steers or len(meaning) < 2 or not self.fixed:
            # Actions have no meaning but the one that gradients give them; where the regression gave A1 one, it stays.
            yield 0, mean.detach() if self.steers and self.fixed else mean
            return
        [action] = coordinates(contrasts([meaning]), self.planner.steering / self.config.steer)
        # A pair is there for the contrast of its two replies; a dialogue's turns are many.
        for which in [rng.randrange(2)] if cloned else range(2):
            yield which, -action if which else action


def _noise(action: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise as large as the action."""
    rms = action.detach().square().mean().sqrt()
    return rms * torch.randn(action.shape, generator=generator).to(action)
