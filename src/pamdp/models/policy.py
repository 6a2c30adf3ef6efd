"""A policy π(u|h): a backbone, its cloned adapter and a planner; it replies to a history and to nothing else.

Owns the way from a history to an action to a reply (eqs. 10 and 11), and under which adapter it goes. A user's profile
cannot reach it: no function here takes one. Vanilla is the same object without a planner.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pamdp.config import Config
from pamdp.errors import ModelError
from pamdp.models.actor import Actor, Planner
from pamdp.models.adapters import Adapter
from pamdp.models.backbone import Backbone, Readout
from pamdp.models.chat import Encoded
from pamdp.models.checkpointing import checkpointed
from pamdp.models.form import whole_sentences
from pamdp.models.generate import DecodeRow, Sampling, generate
from pamdp.models.packed_branches import Branch, packed_log_probs
from pamdp.models.positions import within_positions
from pamdp.models.prefill import prefill
from pamdp.models.prefix import Prefix
from pamdp.prompts.render import load
from pamdp.types import Dialogue, History, Message, as_history


@dataclass(frozen=True, slots=True)
class Policy:
    """What replies. Immutable: training gives a new one, which may share backbone and adapter with the old one.

    Attributes:
      backbone: the language model; several policies may share it.
      planner: A1 and A2, or None: the backbone replies by itself.
      adapter: the LoRA adapter that was cloned with the planner, or None.
      readout: where H(h) is read.
      system: the instruction that stands before every history; says nothing of the user.
      config: the settings that it was trained with.
      users: ids of the users whom it learned from; nobody of them may test.
    """

    backbone: Backbone
    planner: Planner | None = None
    adapter: Adapter | None = None
    readout: Readout = field(default_factory=Readout)
    system: str = field(default_factory=lambda: load("assistant"))
    config: Config = field(default_factory=Config, repr=False)
    users: frozenset[str] = frozenset()

    @property
    def width(self) -> int:
        """Size of H(h)."""
        return self.backbone.d * len(self.readout.places)

    @property
    def frozen_features(self) -> bool:
        """Whether H(h) stays the same while cloning: nothing at or below the layer it is read from learns."""
        clone = self.config.clone
        above = clone.backbone == "lora" and clone.lora_layers == "above" and self.readout.layer != -1
        return clone.backbone == "frozen" or above

    @property
    def trained_planner(self) -> Planner:
        """The planner; a ModelError where there is none: this is a plain backbone."""
        if self.planner is None:
            raise ModelError("this policy has no planner: it is the plain model; clone it first")
        return self.planner

    def with_actor(self, actor: Actor) -> Policy:
        """The same policy with another A1; this one stays as it is."""
        planner = copy.deepcopy(self.trained_planner)
        planner.actor = actor.to(self.backbone.device)
        return replace(self, planner=planner)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Use the policy's adapter inside the block; every method does so by itself, switching once saves time."""
        with self.backbone.adapter(None if self.adapter is None else self.adapter.name):
            yield

    def encode(self, messages: Sequence[Message]) -> Encoded:
        """Tokens of a history under the policy's instruction; a ModelError where the backbone has too few positions."""
        encoded, limit = self.backbone.chat.history(messages, self.system), self.backbone.positions
        if limit is not None and len(encoded.ids) > limit:
            within_positions(self.backbone, tuple(messages), self.system, 0, drop=False)
        return encoded

    def fitted(self, history: History, system: str | None = None) -> History:
        """HISTORY with room for a reply, under another SYSTEM text if given; see `ModelConfig.overflow`."""
        config = self.config
        room = max(config.rl.max_reply, config.clone.max_reply) + config.model.n_embeddings
        system = self.system if system is None else system
        return within_positions(self.backbone, history, system, room, config.model.overflow == "drop")

    def prefix(self, messages: Sequence[Message], before: Prefix | None = None, shallow: bool = False) -> Prefix:
        """The clean pass over a history (text only: earlier actions are not part of h), continuing BEFORE if given.

        A SHALLOW one is only as deep as H(h) is read.
        """
        encoded = self.encode(messages)
        with self.active(), checkpointed(self.backbone, len(encoded.ids)):
            return self.backbone.prefix(encoded, self.readout.layer, before, shallow)

    def prefixes(
        self, histories: Sequence[History], before: Sequence[Prefix | None] = (), scored: bool = True
    ) -> list[Prefix]:
        """The clean passes over several histories, many tokens at a time.

        Where a `Writer` of its own writes, and no reply is SCORED after them, they are as deep as H(h) is read.
        """
        encoded = [self.encode(messages) for messages in histories]
        shallow = self.backbone.writer is not None and not scored
        with self.active(), checkpointed(self.backbone, sum(len(one.ids) for one in encoded)):
            return prefill(self.backbone, encoded, self.readout.layer, before, shallow)

    def features(self, prefix: Prefix, t: int = -1) -> Float[Tensor, " width"]:
        """H(h_t)."""
        return prefix.read(t % len(prefix.encoded.heads), self.readout.places).float()

    @torch.no_grad()
    def act(
        self, features: Float[Tensor, " width"], n: int = 1, seed: int | None = None
    ) -> tuple[Float[Tensor, " d_a"] | None, list[Float[Tensor, " d_a"] | None]]:
        """The mean action of a state, and N actions a ~ N(mean, σ²I), eq. 10.

        Args:
          features: H(h).
          seed: of the noise, which depends on nothing else; None: all actions are the mean.

        Returns:
          None in place of actions where there is no planner.
        """
        if self.planner is None:
            return None, [None] * n
        mean = self.planner.actor(features)
        if seed is None:
            return mean, [mean] * n
        noise = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed)).to(mean)
        return mean, list(mean + self.planner.actor.sigma * noise)

    def mean_action(self, prefix: Prefix, t: int = -1) -> Float[Tensor, " d_a"] | None:
        """E[a | h_t], or None without a planner."""
        return self.act(self.features(prefix, t))[0]

    def branch(
        self, prefix: Prefix, t: int, ids: Sequence[int], action: Tensor | None, hidden: tuple[int, int] | None = None
    ) -> Branch:
        """A reply to turn T under an action, to be scored after PREFIX (with `readout.layer` steered); see `Branch`."""
        inject, steer = self._guide(action)
        if inject is None and steer is not None:
            return self._shifted(prefix, t, ids, steer, hidden)
        return Branch(prefix.encoded.heads[t], ids, inject, hidden, steer)

    def _shifted(
        self, prefix: Prefix, t: int, ids: Sequence[int], steer: Tensor, hidden: tuple[int, int] | None = None
    ) -> Branch:
        """A reply whose hidden states are shifted, and nothing else."""
        # The header's last token runs again, shifted: it is what the reply's first token is read from.
        length = prefix.encoded.heads[t] - 1
        header = prefix.encoded.ids[length : length + 1]
        return Branch(length, ids, self.backbone.embed_ids(header), hidden, steer, header)

    def _guide(self, action: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The embeddings that an action injects, and what it adds to hidden states; None where it does not."""
        if self.planner is None or action is None:
            return None, None
        return None if self.planner.injector is None else self.planner.injector(action), self.planner.steer(action)

    def log_probs(self, prefix: Prefix, branches: Sequence[Branch]) -> list[Tensor]:
        """Log p(u^k | h, a, u^<k) of every token of every branch (eq. 11), each [len(ids)]."""
        return self.packed_log_probs([prefix], [branches])[0]

    def packed_log_probs(self, prefixes: Sequence[Prefix], branches: Sequence[Sequence[Branch]]) -> list[list[Tensor]]:
        """The same for the branches of several prefixes, in one pass where the model can."""
        with self.active():
            return packed_log_probs(self.backbone, prefixes, branches, self.readout.layer)

    def sensitivities(self, prefix: Prefix, replies: Sequence[tuple[int, Sequence[int]]]) -> Float[Tensor, "n d"]:
        """∇_s log p(u|h) of replies (turn, ids), s being added to their hidden states where actions shift them."""
        with torch.enable_grad():
            kind = torch.promote_types(self.backbone.dtype, torch.float32)
            shifts = torch.zeros(
                len(replies), self.backbone.d, device=self.backbone.device, dtype=kind, requires_grad=True
            )
            branches = [self._shifted(prefix, t, ids, s) for (t, ids), s in zip(replies, shifts, strict=True)]
            (found,) = torch.autograd.grad(torch.cat(self.log_probs(prefix, branches)).sum(), shifts)
        return found

    def scores(
        self, prefix: Prefix, t: int, replies: Sequence[Sequence[int]], actions: Sequence[Tensor]
    ) -> Float[Tensor, "n d_a"]:
        """∇_a log p(u|h, a) of replies to turn T, each under its action: which way an action makes a reply likelier."""
        with torch.enable_grad():
            given = torch.stack(list(actions)).detach().to(self.backbone.device).requires_grad_()
            branches = [self.branch(prefix, t, ids, a) for ids, a in zip(replies, given, strict=True)]
            (found,) = torch.autograd.grad(torch.cat(self.log_probs(prefix, branches)).sum(), given)
        return found

    @torch.no_grad()
    def write(
        self,
        prefixes: Sequence[Prefix],
        requests: Sequence[Request],
        sampling: Sampling,
        batch: int = 64,
        progress: Callable[[int], None] | None = None,
    ) -> list[str]:
        """One reply for each request, u = F(a)."""
        rows = [self.row(prefixes[request.prefix], request) for request in requests]
        with self.active():
            write = self.backbone.writer or generate
            replies = write(self.backbone, prefixes, rows, sampling, batch, progress, self.readout.layer)
        return [self.text(ids, sampling) for ids in replies]

    def row(self, prefix: Prefix, request: Request) -> DecodeRow:
        """What a request asks of a batch that decodes."""
        inject, steer = self._guide(request.action)
        return DecodeRow(request.prefix, prefix.encoded.heads[request.t], inject, request.seed, steer)

    def text(self, ids: Sequence[int], sampling: Sampling) -> str:
        """The words of a reply that is over."""
        text = self.backbone.chat.decode(ids)
        # A reply of fewer tokens ended by itself, in whatever way: that is the model's to answer for.
        return whole_sentences(text) if sampling.trim and len(ids) == sampling.max_tokens else text

    def replies(self, histories: Sequence[History], sampling: Sampling) -> list[str]:
        """The replies to some histories, under the mean action."""
        with torch.no_grad():
            prefixes = self.prefixes([self.fitted(history) for history in histories], scored=False)
        requests = [Request(i, -1, self.mean_action(prefix)) for i, prefix in enumerate(prefixes)]
        return self.write(prefixes, requests, sampling)

    def reply(
        self, messages: str | Sequence[Message | Mapping[str, str]], *, max_tokens: int = 64, seed: int = 0
    ) -> str:
        """The reply to a user, under the mean action, greedily.

        Args:
          messages: what the user said, or all messages so far: `Message`s or `{"role": ..., "content": ...}`, the last
            one the user's. Instructions to the model are `system`'s; a user's profile has no place here.
          max_tokens: longest reply.
          seed: of the draw, where a sampler draws.

        Raises:
          DataError: the messages are no chat that ends with the user's.
        """
        with torch.no_grad():
            prefix = self.prefix(self.fitted(as_history(messages)))
        request = Request(0, -1, self.mean_action(prefix), seed)
        return self.write([prefix], [request], Sampling(max_tokens))[0]


@dataclass(frozen=True, slots=True)
class Request:
    """Ask for a reply to turn `t` of prefix number `prefix`, under an action."""

    prefix: int
    t: int
    action: Tensor | None = None
    seed: int = 0


def path(dialogue: Dialogue) -> History:
    """The whole chosen path of a dialogue, up to its last user message."""
    return dialogue.history(len(dialogue.turns) - 1)
