"""One token for each row of a batch, from its logits and numbers of its own.

Knows nothing of who owns a row, or of caches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pamdp.models.generate import Sampling


def uniform(seed: int, n: int) -> Tensor:
    """Uniform numbers [n] of one row."""
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))


def penalised(logits: Tensor, said: Tensor, penalty: Tensor) -> Tensor:
    """Logits [rows, vocabulary] with those of tokens SAID [rows, n] divided by PENALTY [rows], or multiplied if < 0."""
    old, penalty = logits.gather(1, said), penalty[:, None]
    return logits.scatter(1, said, torch.where(old > 0, old / penalty, old * penalty))


def draw(logits: Tensor, at_random: Tensor, temperature: Tensor, top_p: Tensor) -> Tensor:
    """One token per row, [rows]: the inverse of the nucleus' distribution AT_RANDOM; greedy where TEMPERATURE is 0."""
    warm = temperature > 0
    probs = (logits / torch.where(warm, temperature, 1.0)[:, None]).softmax(-1)
    probs, order = probs.sort(dim=-1, descending=True)
    mass = probs.cumsum(-1)
    inside = (mass - probs) < top_p[:, None]
    total = (probs * inside).sum(-1)
    place = torch.searchsorted(mass, (at_random * total)[:, None]).clamp_max(logits.shape[1] - 1)
    place = torch.minimum(place[:, 0], inside.sum(-1) - 1)
    return torch.where(warm, order.gather(1, place[:, None])[:, 0], logits.argmax(-1))


def pick(logits: Tensor, said: Tensor, at_random: Tensor, sampling: Sampling) -> Tensor:
    """One token per row, [rows], all drawn in one way: what a step draws, for writers that have steps of their own."""
    temperature, top_p, penalty = (
        at_random.new_full((len(logits),), x)
        for x in (sampling.temperature, sampling.top_p, sampling.repetition_penalty)
    )
    logits = penalised(logits, said, penalty)
    return draw(logits, at_random, temperature, top_p) if sampling.temperature > 0 else logits.argmax(-1)
