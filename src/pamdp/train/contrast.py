"""What an action means: a point among the ways in which two replies to one history differ.

Owns those directions of hidden states and the regression that tells A1 which of them a state calls for. What topic and
history leave in a reply's states is the same for both replies and drops out of their difference (Rimsky et al. 2023
steer with one such difference for everybody; here the state chooses among many).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pamdp.models.actor import Actor
from pamdp.train.examples import Example
from pamdp.train.refit import Ridge, ridge


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


def coordinates(found: Float[Tensor, "n d"], space: Float[Tensor, "k d"]) -> Float[Tensor, "n k"]:
    """The actions that mean these contrasts; SPACE has orthogonal rows, of which some may be zero."""
    size = space.square().sum(1)
    return found @ (space / size.clamp_min(1e-12)[:, None]).T


def fit_actor(actor: Actor, examples: Sequence[Example], space: Float[Tensor, "k d"]) -> Ridge | None:
    """A1 in closed form: the contrast of a turn's replies, regressed on H(h).

    A regression shrinks what it cannot know: its predictions are a fraction as long as what they predict, and so
    short an action leaves replies as they are. What depends on the state is therefore scaled back to unit RMS.

    Returns:
      The regression, or None where no cloned turn has two replies.
    """
    x, y, owner = list[Tensor](), list[Tensor](), list[int]()
    for number, example in enumerate(examples):
        turns = [t for t, group in enumerate(example.replies) if len(group) == 2]
        if example.cloned and example.states is not None and turns:
            x.append(actor.whiten(example.states[turns]))
            y.append(coordinates(contrasts(example.meanings), space))
            owner += [number] * len(turns)
    if not owner:
        return None
    length = space.norm(dim=1)  # the penalty is chosen by what is explained of hidden states, not of coordinates
    features = torch.cat(x)
    found = ridge(features, torch.cat(y) * length, torch.tensor(owner))
    weight = found.weight / length.clamp_min(1e-6)
    state = (features - features.mean(0)) @ weight
    with torch.no_grad():
        actor.a1.weight.copy_((weight / state.square().mean().sqrt().clamp_min(1e-6)).T)
        actor.a1.bias.copy_(found.bias / length.clamp_min(1e-6))
    return found
