"""A1 in closed form: which contrast of replies a state calls for.

Owns what A1 should predict and the unit of its actions. The regression itself is refit.py's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pamdp.models.actor import Actor
from pamdp.train.contrast import contrasts, coordinates
from pamdp.train.examples import Example
from pamdp.train.refit import Ridge, ridge


def fit_actor(
    actor: Actor, examples: Sequence[Example], space: Float[Tensor, "k d"], gain: float = 1.0
) -> Ridge | None:
    """A1 in closed form: the contrast of a turn's replies, regressed on H(h).

    A regression shrinks what it cannot know: its predictions are a fraction as long as what they predict, and so
    short an action leaves replies as they are. What depends on the state is therefore scaled to an RMS of GAIN, where
    that of contrasts is 1.

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
        actor.a1.weight.copy_((gain * weight / state.square().mean().sqrt().clamp_min(1e-6)).T)
        actor.a1.bias.copy_(found.bias / length.clamp_min(1e-6))
    return found
