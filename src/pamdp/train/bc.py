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
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pamdp.config import CloneConfig
from pamdp.errors import DataError
from pamdp.models.features import FeatureStore
from pamdp.models.packing import Branch, branch_log_probs, reply_features
from pamdp.models.policy import Policy, path
from pamdp.models.posterior import Posterior
from pamdp.rl.losses import cloning_loss
from pamdp.train.contrast import contrasts, directions
from pamdp.train.refit import Ridge, ridge
from pamdp.types import Dialogue, History, PreferencePair


@dataclass(frozen=True, slots=True)
class Example:
    """A history with what never changes while cloning: features of states and of replies.

    Attributes:
      messages: the whole chosen path of a dialogue, or the history of a preference pair.
      states: H(h_t) of every turn, [turns, width]; None where the gradient must reach H.
      replies: for every turn token ids of the preferred reply and, where there is one, of the rejected one.
      meanings: features of those replies for the posterior, of the turns that have any.
      cloned: whether A1 learns from it; a pair's history need not tell whose it is, so its replies only teach what
        actions mean.
    """

    messages: History
    states: Tensor | None
    replies: list[list[list[int]]]
    meanings: list[Tensor]
    cloned: bool = True


class Cloner:
    """The cloning step over examples; owns the posterior and the optimizer.

    Args:
      policy: its planner (and adapter or backbone) is trained in place.
      config: settings.
      store: keeps features across runs where nothing that learns can change them.
    """

    def __init__(self, policy: Policy, config: CloneConfig, store: FeatureStore | None = None) -> None:
        assert policy.planner is not None
        self.policy, self.config, self.step = policy, config, 0
        self.total = 1
        self.planner = policy.planner
        self.posterior = Posterior(policy.backbone.d, self.planner.actor.a1.out_features)
        self.backbone_parameters = [p for p in policy.backbone.model.parameters() if p.requires_grad]
        groups = [{"params": [*self.planner.parameters(), *self.posterior.parameters()], "lr": config.lr}]
        if self.backbone_parameters:
            groups.append({"params": self.backbone_parameters, "lr": config.lr_backbone})
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        fixed = policy.fixed_features(config.backbone, config.lora_layers)
        self.store = store if store is not None and fixed else FeatureStore(None)
        self.fixed = fixed
        self.base = [float(group["lr"]) for group in self.optimizer.param_groups]

    def prepare(
        self,
        dialogues: Sequence[Dialogue],
        pairs: Sequence[PreferencePair] = (),
        progress: Callable[[int], None] | None = None,
    ) -> list[Example]:
        """Examples with features from the policy as it is; fits the whitenings.

        Args:
          pairs: twins may be given whole: what two users prefer in one scene is learned once.

        Raises:
          DataError: no dialogue has a preferred reply.
        """
        # A dialogue without a preferred reply has nothing to clone.
        known = [d for d in dialogues if any(turn.preferred for turn in d.turns)]
        if not known:
            raise DataError("no training turn has a preferred reply", fix="cloning needs dialogues with good replies")
        histories = [(path(d), [(turn.preferred, turn.rejected) for turn in d.turns], True) for d in known]
        scenes = {(pair.history, frozenset((pair.preferred, pair.rejected))): pair for pair in pairs}
        for pair in scenes.values():
            earlier = sum(message.role == "user" for message in pair.history) - 1
            silent: list[tuple[str | None, str | None]] = [(None, None)] * earlier
            histories.append((pair.history, [*silent, (pair.preferred, pair.rejected)], False))
        examples = []
        for history in histories:
            examples.append(self._example(*history))
            if progress is not None:
                progress(1)
        states = torch.cat([e.states for e in examples if e.cloned and e.states is not None])
        self.planner.actor.whiten.fit(states)
        self.posterior.whiten.fit(torch.cat([m for e in examples for m in e.meanings]))
        if not self.fixed:
            examples = [replace(e, states=None) for e in examples]
        return examples

    def _example(self, messages: History, texts: Sequence[tuple[str | None, str | None]], cloned: bool) -> Example:
        backbone = self.policy.backbone
        replies = [
            # Without a preferred reply there is nothing to clone: the first of a turn's replies is the one that is.
            [backbone.chat.reply(text)[: self.config.max_reply] for text in group if text] if group[0] else []
            for group in texts
        ]
        key = ("clone", backbone.revision, self.policy.readout, self.policy.system, messages, replies)
        found = self.store.get(key, lambda: self._features(messages, replies))
        meanings = torch.split(found["replies"], [len(group) for group in replies if group])
        return Example(messages, found["states"], replies, list(meanings), cloned)

    @torch.no_grad()
    def _features(self, messages: History, replies: Sequence[Sequence[list[int]]]) -> dict[str, Tensor]:
        prefix = self.policy.prefix(messages, shallow=True)
        branches = [Branch(prefix.encoded.heads[t], ids) for t, group in enumerate(replies) for ids in group]
        with self.policy.backbone.adapter(self.policy.adapter):
            means = reply_features(self.policy.backbone, prefix, branches, self.policy.readout.layer)
        states = torch.stack([self.policy.features(prefix, t) for t in range(len(replies))])
        return {"states": states, "replies": torch.stack(means)}

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

    @torch.no_grad()
    def steer(self, examples: Sequence[Example]) -> Ridge | None:
        """Actions that shift hidden states: fit their directions, and A1 to them (train/contrast.py).

        The embeddings stay what they are under the mean action: a prompt that is the same for everybody.

        Returns:
          The regression of A1, or None where nothing is to be steered: no dialogue has two replies to one history,
          and then all stays as it was cloned.
        """
        told = any(len(meaning) == 2 for example in examples if example.cloned for meaning in example.meanings)
        if self.planner.steering is None or not self.fixed or not told:
            return None
        actor, injector = self.planner.actor, self.planner.injector
        known = [e for e in examples if e.cloned and e.states is not None]
        mean = torch.cat([actor(e.states) for e in known if e.states is not None]).mean(0)
        injector.a2.bias.add_(injector.a2.weight @ mean)
        injector.a2.weight.zero_()
        space = directions([contrasts(e.meanings) for e in examples], len(self.planner.steering))
        self.planner.steering.copy_(self.config.steer * space)
        x, y, owner = [], [], []
        for number, example in enumerate(known):
            turns = [t for t, group in enumerate(example.replies) if len(group) == 2]
            if not turns:
                continue
            assert example.states is not None
            x.append(actor.whiten(example.states[turns]))
            y.append(contrasts(example.meanings) @ torch.linalg.pinv(space))
            owner += [number] * len(turns)
        found = ridge(torch.cat(x), torch.cat(y), torch.tensor(owner))
        actor.a1.weight.copy_(found.weight.T)
        actor.a1.bias.copy_(found.bias)
        return found

    @torch.no_grad()
    def refit(self, examples: Sequence[Example]) -> Ridge | None:
        """A1 anew, in closed form: the regression of the posterior's actions on the states (train/refit.py).

        Returns:
          The regression, or None where there is no posterior or H(h) has changed while cloning.
        """
        cloned = [e for e in examples if e.cloned and e.states is not None]
        if not self.config.posterior or not cloned:
            return None
        x, y, owner = [], [], []
        for number, example in enumerate(cloned):
            turns = [t for t, group in enumerate(example.replies) if group]
            assert example.states is not None
            x.append(self.planner.actor.whiten(example.states[turns]))
            y += [self.posterior(meaning)[0] for meaning in example.meanings]
            owner += [number] * len(turns)
        found = ridge(torch.cat(x), torch.stack(y), torch.tensor(owner))
        self.planner.actor.a1.weight.copy_(found.weight.T)
        self.planner.actor.a1.bias.copy_(found.bias)
        return found

    def _inject(self, action: Tensor, generator: torch.Generator) -> Tensor:
        """Embeddings of a noisy action, so that replies change smoothly with actions and survive exploration."""
        noise = torch.randn(action.shape, generator=generator).to(action)
        rms = action.detach().square().mean().sqrt() if not self.config.posterior else 1.0
        return torch.as_tensor(self.planner.injector(action + self.config.noise * rms * noise))


def _cross_entropy(log_probs: Sequence[Tensor]) -> Tensor:
    flat = torch.cat(list(log_probs))
    return cloning_loss(flat, torch.ones_like(flat, dtype=torch.bool))
