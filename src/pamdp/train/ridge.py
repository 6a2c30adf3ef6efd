"""A1 in closed form: ridge regression of actions on states, with the penalty chosen on users that were left out.

Owns that regression, what A1 should predict (which contrast of replies a state calls for) and the unit of its actions.
A1 has as many weights for every action number as H(h) has features, often more than there are states: gradient descent
fits the training users and little else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pamdp.models.actor import Actor
from pamdp.train.examples import CloneExample
from pamdp.train.steering import contrasts, coordinates

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Penalties tried, relative to the mean square of a whitened feature times the number of states."""


@dataclass(frozen=True, slots=True)
class Ridge:
    """A fitted regression.

    Attributes:
      weight, bias: y ≈ x · weight + bias, [p, q] and [q].
      penalty: the one chosen.
      r2: share of y's variance explained on left-out groups under that penalty.
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    r2: float


def fit_actor(
    actor: Actor, examples: Sequence[CloneExample], space: Float[Tensor, "k d"], gain: float = 1.0
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
    found = ridge(features, torch.cat(y) * length, torch.tensor(owner, device=features.device))
    weight = found.weight / length.clamp_min(1e-6)
    state = (features - features.mean(0)) @ weight
    with torch.no_grad():
        actor.a1.weight.copy_((gain * weight / state.square().mean().sqrt().clamp_min(1e-6)).T)
        actor.a1.bias.copy_(found.bias / length.clamp_min(1e-6))
    return found


def ridge(x: Float[Tensor, "n p"], y: Float[Tensor, "n q"], groups: Int[Tensor, " n"], folds: int = 5) -> Ridge:
    """Regress Y on X; the penalty explains most of Y in FOLDS-fold cross-validation over GROUPS.

    Args:
      x: whitened features.
      groups: what must not be parted (all states of one user).
    """
    fold = groups % folds
    parts = [fold == k for k in range(folds) if bool((fold == k).any()) and bool((fold != k).any())]
    scores = {penalty: _explained(x, y, parts, penalty) for penalty in PENALTIES} if parts else {1.0: 0.0}
    penalty = max(scores, key=lambda p: scores[p])
    weight, bias = _solve(x, y, penalty)
    return Ridge(weight, bias, penalty, scores[penalty])


def _explained(x: Tensor, y: Tensor, parts: list[Tensor], penalty: float) -> float:
    wrong, total = 0.0, 0.0
    for left_out in parts:
        weight, bias = _solve(x[~left_out], y[~left_out], penalty)
        wrong += float((y[left_out] - x[left_out] @ weight - bias).square().sum())
        total += float((y[left_out] - y[~left_out].mean(0)).square().sum())
    return 1 - wrong / max(total, 1e-12)


def _solve(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    mean_x, mean_y = x.mean(0), y.mean(0)
    a, b = x - mean_x, y - mean_y
    gram = a.T @ a + penalty * len(a) * torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    weight = torch.linalg.solve(gram, a.T @ b)
    return weight, mean_y - mean_x @ weight
