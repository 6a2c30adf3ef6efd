"""The signals judge: what one pass of a clone over a reply tells, and a few numbers of its text, weighed as readers do.

Owns the numbers (how likely the clone finds the reply, how it is formed, how much of the message it takes up or
repeats, whether it is written as the user writes), the clone's states beside them, and their weights, a logistic
regression on readings. Built otherwise than the reward model: nothing of the backbone learns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pamdp.data.readings import ReadState
from pamdp.data.text_overlap import content_words
from pamdp.errors import DataError
from pamdp.models.actor import Whitening
from pamdp.models.backbone import Backbone
from pamdp.models.form import ends_whole
from pamdp.models.packed_branches import reply_log_probs
from pamdp.models.packed_contexts import Group, pack, read_row
from pamdp.models.place import wide
from pamdp.prompts.render import load
from pamdp.types import History, Persona

NUMBERS = (
    "words", "short", "long", "ends whole", "stray start", "digits", "repeats itself", "takes up", "echoes",
    "asks", "exclaims as the user", "lower case as the user", "speaks of itself", "likely for a clone",
)  # fmt: skip
DEPTH = 0.6
"""Where the clone's states are read, as a share of its depth: the mean over a reply's tokens."""
_SELF = re.compile(r"\b(?:i'm|i am|my|mine|i've|we|our)\b", re.I)


class Signals(nn.Module):
    """Weights of NUMBERS and of D states, each in units of its spread."""

    weight: Tensor

    def __init__(self, d: int) -> None:
        super().__init__()
        self.whiten = Whitening(len(NUMBERS) + d)
        self.register_buffer("weight", torch.zeros(len(NUMBERS) + d))

    def forward(self, features: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """Score of each reply."""
        return torch.as_tensor(self.whiten(features) @ self.weight)


@dataclass(eq=False)
class SignalsScorer:
    """Scores of replies, as log-odds up to a constant, from NUMBERS and states.

    CLONE names the adapter of a policy that has learned how good replies are written; None: the backbone is the clone.
    """

    personal = False

    backbone: Backbone
    signals: Signals
    clone: str | None = None
    messages: int = 5

    @torch.no_grad()
    def features(self, history: History, replies: Sequence[str]) -> Float[Tensor, "n k"]:
        """NUMBERS of each reply, and behind them the mean state of its tokens; on the CPU."""
        backbone, chat = self.backbone, self.backbone.chat
        ids = [chat.reply(reply) for reply in replies]
        context = chat.history(history[-self.messages :], load("assistant")).ids
        row = pack([Group(context, ids)], backbone.device)
        with backbone.adapter(self.clone):
            states, final = read_row(backbone, row, backbone.layer_at(DEPTH))
        found = reply_log_probs(backbone, [final[before] for before, _ in row.predicts], ids)
        likely = torch.stack([tokens.mean() for tokens in found])
        means = torch.stack([states[own].mean(0, dtype=wide(states.dtype)) for _, own in row.predicts])
        texts = torch.tensor([text_numbers(history[-1].content, reply) for reply in replies])
        return torch.cat([texts, likely[:, None].float().cpu(), means.float().cpu()], dim=1)

    def score(self, persona: Persona, history: History, replies: Sequence[str]) -> list[float]:
        """Score of each reply, the same for every person."""
        scores: list[float] = self.signals(self.features(history, replies)).tolist()
        return scores


def text_numbers(message: str, reply: str) -> list[float]:
    """Those of NUMBERS that need no model."""
    words, asked = re.findall(r"[\w']+", reply.lower()), re.findall(r"[\w']+", message.lower())
    pairs, theirs = [*pairwise(words)], {*pairwise(asked)}
    mine, about = content_words(reply), content_words(message)
    n = max(1, len(words))
    lower = reply[:1].islower()
    return [
        math.log(n), float(n < 5), float(n > 35), float(ends_whole(reply)),
        float(bool(re.match(r"[^\w\"'(]", reply)) or (lower and not message[:1].islower())),
        float(bool(re.search(r"\d", reply))), 1 - len({*pairs}) / len(pairs) if pairs else 0.0,
        len(mine & about) / max(1, len(mine)), sum(pair in theirs for pair in pairs) / n, float("?" in reply),
        float(("!" in reply) == ("!" in message)), float(lower == message[:1].islower()),
        len(_SELF.findall(reply)) / n,
    ]  # fmt: skip


def train_signals(
    backbone: Backbone,
    states: Sequence[ReadState],
    clone: str | None = None,
    *,
    decay: float = 1e-3,
    decay_states: float = 0.1,
    progress: Callable[[int], None],
) -> SignalsScorer:
    """A scorer whose weights best explain what readers preferred; a DataError where they compared nothing.

    Args:
      decay, decay_states: weight of the squared weights of NUMBERS, and of those of states.
    """
    scorer = SignalsScorer(backbone, Signals(backbone.d), clone)
    whole, differences, shares = list[Tensor](), list[Tensor](), list[float]()
    for state in states:
        letters = list(state.replies)
        features = scorer.features(state.history, [state.replies[letter].text for letter in letters])
        whole.append(features)
        for pair in state.pairs():
            differences.append(features[letters.index(pair.a)] - features[letters.index(pair.b)])
            shares.append(pair.share)
        progress(1)
    if not differences:
        raise DataError("no reader compared two replies", fix="give readings with `prefer`")
    scorer.signals.whiten.fit(torch.cat(whole))
    x, y = (torch.stack(differences) / scorer.signals.whiten.scale).double(), torch.tensor(shares).double()
    weight = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True)
    decays = torch.tensor([decay] * len(NUMBERS) + [decay_states] * backbone.d).to(x)
    optimizer = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

    def cost() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(x @ weight, y) + decays @ weight.square()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(cost)  # type: ignore[no-untyped-call]  # torch does not type it
    scorer.signals.weight.copy_(weight.detach())
    return scorer
