"""The likelihood judge: how much more probable knowing the person makes a reply.

Owns the score s(u|ω,q) = α·[log p(u|ω,q) − log p₀(u|q)] + c·z(u|ω,q): a likelihood ratio under the backbone with a
small adapter (p) against the bare one (p₀), and a linear read-out of the reply's states z. It sees the person and the
last message. Without the person there is nothing left to prefer by, which the persona-blind control checks.

`likelihood-ratio` is the first part alone, with p the bare backbone, too: it needs no training, so it judges beside any
backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from pamdp.judges.scoring import Calibration, ScoringJudge, found_once
from pamdp.models.backbone import Backbone
from pamdp.models.packed_branches import Branch, branch_log_probs, reply_log_probs
from pamdp.models.packed_contexts import Group, PackedRow, pack, run_layers
from pamdp.models.place import wide
from pamdp.models.prefix import first_of
from pamdp.prompts.render import load, render
from pamdp.registry import JUDGES
from pamdp.types import History, Persona

ADAPTER = "judge"
KEPT = 17
"""Most contexts whose keys and values are kept: that without a person, and those of as many persons as play at once."""


class LikelihoodHead(nn.Module):
    """α and c of the score; D is the width of the backbone."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.1))
        self.readout = nn.Linear(d, 1, bias=False)
        nn.init.zeros_(self.readout.weight)


class LikelihoodScorer:
    """Scores of replies, as log-odds up to a constant; the backbone carries the adapter ADAPTER from layer CUT on."""

    messages = 1
    personal = True

    def __init__(self, backbone: Backbone, head: LikelihoodHead, cut: int) -> None:
        self.backbone, self.head, self.cut = backbone, head.to(backbone.device), cut
        self._weights: tuple[int, ...] = ()
        self._kept: dict[Persona | None, tuple[Sequence[int], DynamicCache]] = {}
        self._base: dict[tuple[History, str], Tensor] = {}

    def group(self, persona: Persona, history: History, replies: Sequence[str]) -> Group:
        """The replies after the last message, with the person in front, if anything is known of one."""
        chat = self.backbone.chat
        return Group(chat.history(history[-1:], _system(persona)).ids, [chat.reply(reply) for reply in replies])

    def scores(self, row: PackedRow, lower: Tensor, base: Sequence[Tensor]) -> list[Tensor]:
        """Score of every reply of a packed row, each a scalar.

        Args:
          lower: states below the adapter, [L, d].
          base: log p₀(u|q) of every reply.
        """
        return self._combine(row, self._upper(row, lower, ADAPTER), base)

    def _upper(self, row: PackedRow, lower: Tensor, adapter: str | None, cache: DynamicCache | None = None) -> Tensor:
        """Final states of a row from those below the adapter."""
        with self.backbone.adapter(adapter):
            return run_layers(self.backbone, row, lower, self.cut, -1, cache)

    def _combine(self, row: PackedRow, states: Tensor, base: Sequence[Tensor]) -> list[Tensor]:
        out = []
        read = states.to(wide(states.dtype))
        for (_, own), known, anyone in zip(row.predicts, self._log_probs(row, states), base, strict=True):
            tokens = read[own]  # a last place that is looked up by its number would be waited for
            z = self.head.readout(tokens.mean(0) + tokens[-1])[0]
            out.append(self.head.alpha * (known - anyone) + z)
        return out

    def _log_probs(self, row: PackedRow, states: Tensor) -> list[Tensor]:
        """Log p of every reply of a row from its final states, each a scalar."""
        before = [states[at] for at, _ in row.predicts]
        return [tokens.sum() for tokens in reply_log_probs(self.backbone, before, row.replies)]

    @torch.no_grad()
    def lower(self, row: PackedRow, cache: DynamicCache | None = None) -> Tensor:
        """States of a row below the adapter."""
        with self.backbone.adapter(None):
            return run_layers(self.backbone, row, None, 0, self.cut, cache)

    def _states(self, group: Group, persona: Persona | None) -> tuple[PackedRow, Tensor]:
        """Final states of a context and its replies, for a person or (bare) for anyone.

        What a context has in common with this person's last one, such as the description, is not run again.
        """
        before, cache = self._kept.pop(persona, ((), DynamicCache()))
        pairs = zip(before, group.context[:-1], strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before), len(group.context) - 1))
        cache = first_of(cache, same) if same else DynamicCache()
        row = pack([group], self.backbone.device, same)
        states = self._upper(row, self.lower(row, cache), None if persona is None else ADAPTER, cache)
        self._kept[persona] = (group.context, first_of(cache, len(group.context)))
        if len(self._kept) > KEPT:
            del self._kept[next(p for p in self._kept if p is not None)]  # whoever was asked about longest ago
        return row, states

    @torch.no_grad()
    def base(self, history: History, replies: Sequence[str]) -> list[Tensor]:
        """Log p₀(u|q) of every reply to the last message; each is found once, whoever the person is."""
        last = history[-1:]

        def find(new: list[str]) -> list[Tensor]:
            return self._log_probs(*self._states(self.group(Persona(), last, new), None))

        return found_once(self._base, last, replies, find)

    @torch.no_grad()
    def score(self, persona: Persona, history: History, replies: Sequence[str]) -> list[float]:
        """Score of each reply for a person."""
        weights = tuple(n for p in self.backbone.model.parameters() for n in (id(p), p._version))
        if weights != self._weights:
            self.forget()
            self._weights = weights
        base = self.base(history, replies)
        row, states = self._states(self.group(persona, history, replies), persona)
        scores: list[float] = torch.stack(self._combine(row, states, base)).tolist()
        return scores

    def forget(self) -> None:
        """Drop the kept contexts and what was found of replies."""
        self._kept.clear()
        self._base.clear()


@dataclass(frozen=True, slots=True)
class RatioScorer:
    """log p₀(u|ω,q) − log p₀(u|q) under the bare backbone; 0 for whoever nothing is known of."""

    personal = True

    backbone: Backbone
    messages: int = 1

    @torch.no_grad()
    def score(self, persona: Persona, history: History, replies: Sequence[str]) -> list[float]:
        """Score of each reply for a person."""
        with self.backbone.adapter(None):
            known, anyone = (self._log_probs(each, history, replies) for each in (persona, Persona()))
        return [float(a - b) for a, b in zip(known, anyone, strict=True)]

    def _log_probs(self, persona: Persona, history: History, replies: Sequence[str]) -> list[Tensor]:
        chat = self.backbone.chat
        prefix = self.backbone.prefix(chat.history(history[-1:], _system(persona)))
        branches = [Branch(len(prefix.encoded.ids), chat.reply(reply)) for reply in replies]
        return [tokens.sum() for tokens in branch_log_probs(self.backbone, prefix, branches)]


def _system(persona: Persona) -> str:
    return render("judge_for", persona=persona.text) if persona.text else load("judge_anyone")


@JUDGES("likelihood-ratio")
def ratio_judge(backbone: Callable[[], Backbone]) -> ScoringJudge:
    """The judge that needs no training; its probabilities are the ratio's own, which nobody calibrated."""
    found = backbone()
    print_ = {"backbone": f"{found.name}@{found.revision}"}
    return ScoringJudge("likelihood-ratio", RatioScorer(found), Calibration(), print_)
