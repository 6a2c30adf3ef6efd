"""The sense scorer: whether a reply reads like one that a person wrote, whoever it is for.

Owns a linear read-out that tells written replies from those of models, from the states that the match judge reads
anyway (the reply after the last message; the person is not seen). Rewarded beside `match`, which asks only whom a reply
suits and is content with word salad in the right voice. Written replies that suit nobody count as written: what is
learned is how people write, not whom they please.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pamdp.judges.base import forget
from pamdp.judges.match import MatchScorer
from pamdp.models.actor import Whitening
from pamdp.types import History, Persona

Texts = Sequence[tuple[History, Sequence[str]]]
"""Replies, by the history that they answer."""


class SenseHead(nn.Module):
    """Log-odds of "a person wrote this", up to a constant; REPLY is the width of a reply's features."""

    weight: Tensor

    def __init__(self, reply: int) -> None:
        super().__init__()
        self.whiten = Whitening(reply)
        self.register_buffer("weight", torch.zeros(reply))

    def forward(self, replies: Float[Tensor, "n R"]) -> Float[Tensor, " n"]:
        """Score of each reply."""
        return torch.as_tensor(self.whiten(replies) @ self.weight)


@dataclass(eq=False)
class SenseScorer:
    """Scores of replies, from the features that `match` reads; they are the same for every person."""

    messages = 1
    personal = False

    match: MatchScorer
    head: SenseHead

    def __post_init__(self) -> None:
        self.head.to(self.match.backbone.device)

    @torch.no_grad()
    def score(self, persona: Persona, history: History, replies: Sequence[str]) -> list[float]:
        """Score of each reply."""
        scores: list[float] = self.head(self.match.reply_features(history, replies)).tolist()
        return scores

    def forget(self) -> None:
        """Drop the features of replies."""
        forget(self.match)


def train_sense(
    match: MatchScorer, people: Texts, models: Sequence[Texts], progress: Callable[[int], None]
) -> SenseScorer:
    """A scorer that tells what PEOPLE wrote from what some MODELS wrote.

    Each of the models whose replies will be compared must be among them: habits that were never shown as a model's
    pass for a person's.
    """
    sides = []
    for texts in (people, *models):
        features = []
        for history, replies in texts:
            features.append(match.reply_features(history, replies))
            match.forget()
            progress(len(replies))
        sides.append(torch.cat(features))
    head = SenseHead(sides[0].shape[1]).to(sides[0].device)
    fit_sense(head, sides[0], sides[1:], decay=0.01)
    return SenseScorer(match, head)


def fit_sense(
    head: SenseHead, people: Float[Tensor, "n R"], models: Sequence[Float[Tensor, "m R"]], *, decay: float
) -> None:
    """Fit the head in place by logistic regression; people weigh as much as all models, and every model the same.

    DECAY: weight of the squared norm; features have unit variance.
    """
    head.whiten.fit(torch.cat([people, *models]))
    good, bad = head.whiten(people), [head.whiten(model) for model in models]
    weight, bias = (torch.zeros(n, device=good.device, requires_grad=True) for n in (good.shape[1], 1))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")
    softplus = nn.functional.softplus

    def cost() -> Tensor:
        optimizer.zero_grad()
        mistaken = torch.stack([softplus(model @ weight + bias).mean() for model in bad]).mean()
        loss = (softplus(-(good @ weight + bias)).mean() + mistaken) / 2 + decay * weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(cost)  # type: ignore[no-untyped-call]  # torch does not type it
    head.weight.copy_(weight.detach())
