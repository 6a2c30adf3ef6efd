"""What an action means: a point among the ways in which two replies to one history differ.

Owns those directions of hidden states. What topic and history leave in a reply's states is the same for both replies
and drops out of their difference (Rimsky et al. 2023 steer with one such difference for everybody; here the state
chooses among many).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def contrasts(meanings: Sequence[Float[Tensor, "replies d"]]) -> Float[Tensor, "n d"]:
    """Half the difference of preferred and rejected reply, for every turn that has both; n may be 0."""
    both = [(m[0] - m[1]) / 2 for m in meanings if len(m) == 2]
    return torch.stack(both) if both else torch.empty(0, 0)


def directions(found: Float[Tensor, "n d"], k: int) -> Float[Tensor, "k d"]:
    """The K leading directions of contrasts, orthogonal, each as long as a contrast's RMS along it.

    Contrasts thus have unit variance in every coordinate of an action: noise of one standard deviation looks like the
    difference of two replies, most of it along the few directions in which replies differ most.
    """
    _, size, basis = torch.linalg.svd(found, full_matrices=False)
    scale = size[:k, None] / len(found) ** 0.5
    out = torch.zeros(k, found.shape[1], dtype=found.dtype, device=found.device)
    out[: len(scale)] = scale * basis[:k]
    return out


def sensitive(scores: Float[Tensor, "n d"], k: int) -> Float[Tensor, "k d"]:
    """The K directions of hidden states that decide most about which reply is said, orthogonal and equally long.

    They are the leading ones of the Fisher information of replies: of their scores ∇_s log p(u|h), about the mean. Long
    enough that noise of one standard deviation in every number of an action changes log p(u|h) by one nat (RMS). In
    which direction replies *differ* is another question: contrasts of written replies may lie where a shift changes
    nothing of what is said (docs/decisions.md).
    """
    _, size, basis = torch.linalg.svd(scores - scores.mean(0), full_matrices=False)
    known = min(k, int((size > 1e-6 * size[0]).sum()))
    out = torch.zeros(k, scores.shape[1], dtype=scores.dtype, device=scores.device)
    out[:known] = basis[:known] * (len(scores) ** 0.5 / size[:known].norm().clamp_min(1e-12))
    return out


def coordinates(found: Float[Tensor, "n d"], space: Float[Tensor, "k d"]) -> Float[Tensor, "n k"]:
    """The actions that mean these contrasts; SPACE has orthogonal rows, of which some may be zero."""
    size = space.square().sum(1)
    return found @ (space / size.clamp_min(1e-12)[:, None]).T
