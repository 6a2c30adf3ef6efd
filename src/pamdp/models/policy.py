"""A policy π(u|h): a backbone, its cloned adapter and a planner; it replies to a history and to nothing else.

Owns the way from a history to an action to a reply (eqs. 10 and 11). A user's profile cannot reach it: no function here
takes one. Vanilla is the same object without a planner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from pamdp.models.actor import Planner
from pamdp.models.backbone import Backbone, Prefix, Readout
from pamdp.models.checkpointing import checkpointed
from pamdp.models.generate import DecodeRow, Sampling, generate
from pamdp.models.packed_branches import Branch
from pamdp.models.prefill import prefill
from pamdp.prompts.render import load
from pamdp.types import Dialogue, History, Message


@dataclass(frozen=True, slots=True)
class Policy:
    """What replies.

    Attributes:
      planner: A1 and A2, or None: the backbone replies by itself.
      adapter: name of the LoRA adapter that was cloned with the planner, or None.
      readout: where H(h) is read.
      system: the instruction that stands before every history; says nothing of the user.
    """

    backbone: Backbone
    planner: Planner | None = None
    adapter: str | None = None
    readout: Readout = field(default_factory=Readout)
    system: str = field(default_factory=lambda: load("assistant"))

    @property
    def width(self) -> int:
        """Size of H(h)."""
        return self.backbone.d * len(self.readout.places)

    def fixed_features(self, trained: str, lora_layers: str) -> bool:
        """Whether H(h) stays the same while cloning: nothing at or below the layer it is read from learns."""
        return trained == "frozen" or (trained == "lora" and lora_layers == "above" and self.readout.layer != -1)

    def prefix(self, messages: Sequence[Message], before: Prefix | None = None, shallow: bool = False) -> Prefix:
        """The clean pass over a history (text only: earlier actions are not part of h), continuing BEFORE if given.

        Args:
          shallow: only as deep as H(h) is read.
        """
        encoded = self.backbone.chat.history(messages, self.system)
        with self.backbone.adapter(self.adapter), checkpointed(self.backbone, len(encoded.ids)):
            return self.backbone.prefix(encoded, self.readout.layer, before, shallow)

    def prefixes(self, histories: Sequence[History], before: Sequence[Prefix | None] = ()) -> list[Prefix]:
        """The clean passes over several histories, many tokens at a time."""
        encoded = [self.backbone.chat.history(messages, self.system) for messages in histories]
        with self.backbone.adapter(self.adapter):
            return prefill(self.backbone, encoded, self.readout.layer, before)

    def features(self, prefix: Prefix, t: int = -1) -> Float[Tensor, " width"]:
        """H(h_t)."""
        return prefix.read(t % len(prefix.encoded.heads), self.readout.places).float()

    @torch.no_grad()
    def mean_action(self, prefix: Prefix, t: int = -1) -> Float[Tensor, " d_a"] | None:
        """E[a | h_t], or None without a planner."""
        return None if self.planner is None else self.planner.actor(self.features(prefix, t))

    def branch(self, prefix: Prefix, t: int, ids: Sequence[int], action: Tensor | None) -> Branch:
        """A reply to turn T under an action, to be scored after PREFIX (with `readout.layer` steered)."""
        if self.planner is None or action is None:
            return Branch(prefix.encoded.heads[t], ids)
        inject, steer = self.planner.injector(action), self.planner.steer(action)
        return Branch(prefix.encoded.heads[t], ids, inject, steer=steer)

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
        rows = []
        for request in requests:
            inject = steer = None
            if self.planner is not None and request.action is not None:
                inject, steer = self.planner.injector(request.action), self.planner.steer(request.action)
            length = prefixes[request.prefix].encoded.heads[request.t]
            rows.append(DecodeRow(request.prefix, length, inject, request.seed, steer))
        with self.backbone.adapter(self.adapter):
            replies = generate(self.backbone, prefixes, rows, sampling, batch, progress, self.readout.layer)
        return [self.backbone.chat.decode(ids) for ids in replies]

    def reply(self, history: History, sampling: Sampling, seed: int = 0) -> str:
        """The reply to one history, with the mean action."""
        with torch.no_grad():
            prefix = self.prefix(history)
        return self.write([prefix], [Request(0, -1, self.mean_action(prefix), seed)], sampling)[0]


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
