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


def pick(logits: Tensor, said: Tensor, at_random: Tensor, sampling: Sampling) -> Tensor:
    """One token per row, [rows]: greedy, or the inverse of the nucleus' distribution AT_RANDOM."""
    if sampling.repetition_penalty != 1.0:
        old = logits.gather(1, said)
        new = torch.where(old > 0, old / sampling.repetition_penalty, old * sampling.repetition_penalty)
        logits = logits.scatter(1, said, new)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probs, order = (logits / sampling.temperature).softmax(-1).sort(dim=-1, descending=True)
    mass = probs.cumsum(-1)
    inside = (mass - probs) < sampling.top_p
    total = (probs * inside).sum(-1)
    place = torch.searchsorted(mass, (at_random * total)[:, None]).clamp_max(logits.shape[1] - 1)
    place = torch.minimum(place[:, 0], inside.sum(-1) - 1)
    return order.gather(1, place[:, None])[:, 0]
