"""Behaviour cloning, eq. 17: the planner (and by choice LoRA or the backbone) learns to write the references.

Owns the cloning step. Each turn is a branch after one clean pass over its dialogue (models/packed_branches.py). Where
actions shift hidden states, a reply is learned under the action that means it (train/steering.py), preferred and
rejected replies alike: the same history is written on in two ways, and only the action says which (docs/decisions.md).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pamdp.checkpoint import Tree
from pamdp.config import CloneConfig
from pamdp.models.beside import stands_beside
from pamdp.models.features import FeatureStore
from pamdp.models.packed_branches import Branch
from pamdp.models.policy import Policy
from pamdp.models.prefix import Prefix
from pamdp.rl.losses import cloning_loss
from pamdp.train.examples import CloneExample, prepare
from pamdp.train.master_weights import MasterWeights
from pamdp.train.parallel import Alone, parallel
from pamdp.train.ridge import Ridge, fit_actor
from pamdp.train.steering import contrasts, coordinates, directions, sensitive
from pamdp.types import Dialogue, PreferencePair

SCORED = 128
"""Dialogues whose replies' scores give the directions: some 1,500 scores for 64 of them."""
PACKED = 4096
"""Tokens that learn in one pass where a device would otherwise wait for its kernels to be launched."""
WARM_UP = 5
"""Steps over which the learning rates rise; they then fall linearly to zero."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A reply of an example to be learned.

    Attributes:
      t, which: its turn, and its number among the turn's replies.
      meaning: features of the turn's replies, [replies, d].
      hide: the turns before this one are hidden from it.
      noise: what is added to its action, before that is known, [d_a]; None: it has no action.
    """

    t: int
    which: int
    meaning: Tensor
    hide: bool
    noise: Tensor | None


class Cloner:
    """The cloning step over examples; owns the optimizer. Planner, and adapter or backbone, are trained in place.

    STORE keeps features across runs where nothing that learns can change them.
    """

    def __init__(self, policy: Policy, config: CloneConfig, store: FeatureStore | None = None) -> None:
        self.policy, self.config, self.step = policy, config, 0
        self.planner, self.steers = policy.trained_planner, False
        self.fixed = policy.frozen_features
        self.late = not self.fixed and self.planner.injector is None and self.planner.steering is not None
        self.store = store if store is not None and self.fixed else FeatureStore(None)
        # Passes that run one by one all the same would only keep what each needs for its gradient at once.
        self.most = most_tokens(config, policy.backbone.device) if stands_beside(policy.backbone) else 1

    @cached_property
    def parallel(self) -> Alone:
        """The processes that learn; made when learning begins, since shards of weights give no features."""
        return parallel(self.policy, self._loss)

    @cached_property
    def master(self) -> MasterWeights:
        """What the optimizer moves of the backbone."""
        return MasterWeights(p for p in self.parallel.policy.backbone.model.parameters() if p.requires_grad)

    @cached_property
    def optimizer(self) -> torch.optim.AdamW:
        """AdamW over the planner and what learns of the backbone."""
        groups = [{"params": list(self.planner.parameters()), "lr": self.config.lr}]
        if self.master.learned:
            groups.append({"params": self.master.learned, "lr": self.config.lr_backbone})
        return torch.optim.AdamW(groups, weight_decay=0.01, fused=True)

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
        # Every process draws for all examples: the draws are the same, whoever does which.
        lessons = [self.draw(example, rng, generator) for example in examples]
        done = dict[int, Tensor]()
        passes = self.parallel.passes([self._tokens(example) for example in examples], self.most)
        for number, (own, share) in enumerate(passes, 1):
            # A long pass is in part run again for its gradient: under the same adapter.
            with self.parallel.policy.active(), self.parallel.syncing(number == len(passes)):
                losses = self.parallel.forward([examples[i] for i in own], [lessons[i] for i in own])
                torch.autograd.backward(losses.sum() / len(examples) * share)
            self.master.take_gradients()
            if share:
                done |= zip(own, losses.detach(), strict=True)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = self.parallel.clip(parameters, self.config.clip)
        scale = min(1.0, (self.step + 1) / WARM_UP) * max(0.0, 1 - self.step / total)
        for group, lr in zip(self.optimizer.param_groups, (self.config.lr, self.config.lr_backbone), strict=False):
            group["lr"] = lr * scale
        self.optimizer.step()
        self.master.give_values()
        self.step += 1
        all_losses = torch.stack([done.get(i, torch.zeros_like(norm)) for i in range(len(examples))])
        # One copy from the device for all.
        *found, size = torch.cat([self.parallel.summed(all_losses), norm[None]]).tolist()
        return {"nll": sum(loss / len(examples) for loss in found), "gradient_norm": size}

    def state(self) -> dict[str, Tree]:
        """What the optimizer needs to go on, whole, however many processes learn; all of them ask for it."""
        state: dict[str, Tree] = {"optimizer": self.parallel.whole(self.optimizer.state_dict())}
        if master := self.master.state():
            state["master"] = self.parallel.whole(list[Tree](master))
        return state

    def load_state(self, state: Mapping[str, Tree]) -> None:
        """Take up what `state` gave."""
        # What was stored comes back equal, but as a Tree: its own type is lost on the way.
        self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        for parameter, own in self.optimizer.state.items():
            own.update({name: self.parallel.part(value, parameter) for name, value in own.items()})
        twins: list[Tensor] = state.get("master", [])  # type: ignore[assignment]
        self.master.load_state([self.parallel.part(*pair) for pair in zip(twins, self.master.state(), strict=True)])

    def loss(self, example: CloneExample, rng: random.Random, generator: torch.Generator) -> Tensor:
        """Negative log-likelihood of an example's replies, each under its noisy action, per token."""
        return self._loss(self.policy, [example], [self.draw(example, rng, generator)])[0]

    def draw(self, example: CloneExample, rng: random.Random, generator: torch.Generator) -> list[Lesson]:
        """What chance decides of a pass over an example: which replies are learned, what is hidden, and the noise."""
        lessons, turns = list[Lesson](), [t for t, group in enumerate(example.replies) if group]
        for t, meaning in zip(turns, example.meanings, strict=True):
            # Context dropout: without the earlier turns only the action can tell the reply who is being talked to.
            hide = t > 0 and rng.random() < self.config.context_dropout
            chosen: Sequence[int] = [0]
            if self._by_contrast(meaning):
                # A pair is there for the contrast of its two replies; a dialogue's turns are many.
                chosen = [rng.randrange(2)] if example.cloned else range(2)
            for which in chosen:
                noise = None if self.late else torch.randn(self.planner.actor.a1.out_features, generator=generator)
                lessons.append(Lesson(t, which, meaning, hide, noise))
        return lessons

    def _loss(self, policy: Policy, examples: Sequence[CloneExample], lessons: Sequence[Sequence[Lesson]]) -> Tensor:
        """The loss of every example, [n]; all of them in one pass where the model can."""
        prefixes = policy.prefixes([example.messages for example in examples])
        every = zip(examples, prefixes, lessons, strict=True)
        branches = [self._branches(policy, example, prefix, own) for example, prefix, own in every]
        losses = [cloning_loss(torch.cat(found)) for found in policy.packed_log_probs(prefixes, branches)]
        return self.parallel.tied(torch.stack(losses), torch.cat([prefix.final for prefix in prefixes]))

    def _branches(
        self, policy: Policy, example: CloneExample, prefix: Prefix, lessons: Sequence[Lesson]
    ) -> list[Branch]:
        mean = self._mean(policy, example, prefix)
        branches: list[Branch] = []
        for lesson in lessons:
            hidden = (prefix.encoded.users[0][0], prefix.encoded.users[lesson.t][0]) if lesson.hide else None
            action = None
            if mean is not None and lesson.noise is not None:
                action = self._action(mean[lesson.t], lesson)
                action = action + self.config.noise * _as_large(lesson.noise, action)
            branches.append(policy.branch(prefix, lesson.t, example.replies[lesson.t][lesson.which], action, hidden))
        return branches

    def _tokens(self, example: CloneExample) -> int:
        """How many a pass over it has, at most; not counted where nothing is packed."""
        if self.most == 1:
            return 1
        return len(self.policy.encode(example.messages).ids) + sum(len(ids) for g in example.replies for ids in g)

    def _mean(self, policy: Policy, example: CloneExample, prefix: Prefix) -> Tensor | None:
        """Mean actions of all turns, [turns, d_a]; None where actions will get a meaning at the end only."""
        if self.late:
            return None
        states = example.states
        if states is None:
            states = torch.stack([policy.features(prefix, t) for t in range(len(prefix.encoded.heads))])
        return torch.as_tensor(self.planner.actor(states))

    def _by_contrast(self, meaning: Tensor) -> bool:
        """Whether the replies that a MEANING is of are learned under actions that mean them.

        Elsewhere actions have no meaning but the one that gradients give them.
        """
        return not self.late and self.planner.steering is not None and self.steers and self.fixed and len(meaning) == 2

    def _action(self, mean: Tensor, lesson: Lesson) -> Tensor:
        """Under which action a reply is learned, before noise."""
        if not self._by_contrast(lesson.meaning):
            # Where the regression gave A1 a meaning, it stays.
            return mean.detach() if self.steers and self.fixed else mean
        assert self.planner.steering is not None
        actions = coordinates(contrasts([lesson.meaning]), self.planner.steering / self.config.steer)
        return -actions[0] if lesson.which else actions[0]


def most_tokens(config: CloneConfig, device: torch.device) -> int:
    """How many learn in one pass on DEVICE; see `CloneConfig.pack_tokens`."""
    return config.pack_tokens or (1 if device.type == "cpu" else PACKED)


def _as_large(noise: Tensor, action: Tensor) -> Tensor:
    """Normal NOISE as large as an action."""
    rms: Tensor = action.detach().square().mean().sqrt()
    return rms * noise.to(action)
