"""Directions of hidden states in which two replies to one history differ: what an action can choose between.

Owns those directions. What topic and history leave in a reply's states is the same for both replies and drops out of
their difference (Rimsky et al. 2023 steer with one such difference for everybody; here the state chooses among many).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def contrasts(meanings: Sequence[Float[Tensor, "replies d"]]) -> Float[Tensor, "n d"]:
    """Half the difference of preferred and rejected reply, for every turn that has both."""
    return torch.stack([(m[0] - m[1]) / 2 for m in meanings if len(m) == 2] or [meanings[0][0] * 0])


def directions(found: Sequence[Float[Tensor, "n d"]], k: int) -> Float[Tensor, "k d"]:
    """The K leading directions of contrasts, orthogonal, each as long as a contrast's RMS along all of them.

    An action of unit RMS thus shifts the states about as far as a preferred reply differs from the middle.
    """
    every = torch.cat(list(found))
    basis = torch.linalg.svd(every, full_matrices=False).Vh[:k]
    scale = (every @ basis.T).square().mean().sqrt()
    out = torch.zeros(k, every.shape[1], dtype=every.dtype, device=every.device)
    out[: len(basis)] = scale * basis
    return out
