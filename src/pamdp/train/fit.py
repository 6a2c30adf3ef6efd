"""The end of cloning, in closed form: what a state's action should be, then A1 as one regression of it on H(h).

Owns what A1 should predict and, where actions shift hidden states, the directions that they shift them in. Gradient
steps (bc.py) have made the embeddings and the posterior; the regression itself is refit.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from pamdp.models.actor import Actor, Planner
from pamdp.models.posterior import Posterior
from pamdp.train.contrast import contrasts, directions
from pamdp.train.examples import Example
from pamdp.train.refit import Ridge, ridge

Wanted: TypeAlias = Callable[[Example], tuple[list[int], list[Tensor]]]
"""The turns of an example whose action is known, and for each of them that action, [d_a]."""


@torch.no_grad()
def fit_actor(
    planner: Planner, posterior: Posterior | None, examples: Sequence[Example], strength: float
) -> Ridge | None:
    """Fit A1 in place; of a planner that steers, its directions first.

    The action of a state is half of preferred minus rejected reply where the planner steers, else the posterior's
    action for the preferred reply.

    Args:
      posterior: None where cloning had none.
      examples: those that cloning learned from; only the cloned ones with stored states can be regressed on.
      strength: of the shift, relative to a contrast (`clone.steer`).

    Returns:
      The regression, or None where nothing says what an action should be: H(h) changed while cloning, no turn has
      both replies, or there is no posterior. A1 is then left as it is.
    """
    known = [(e.states, e) for e in examples if e.cloned and e.states is not None]
    found = None
    if planner.steering is not None and known:
        found = _regress(planner.actor, known, _steer(planner, examples, known, strength))
    if found is None and posterior is not None:
        found = _regress(planner.actor, known, _posterior_actions(posterior))
    return found


def _steer(
    planner: Planner, examples: Sequence[Example], known: Sequence[tuple[Tensor, Example]], strength: float
) -> Wanted:
    """Set the directions of the shift; the actions that would shift a reply from the middle to the preferred one.

    The embeddings stay what they are under the mean action: a prompt that is the same for everybody.
    """
    assert planner.steering is not None
    mean = torch.cat([planner.actor(states) for states, _ in known]).mean(0)
    a2 = planner.injector.a2
    a2.bias.add_(a2.weight @ mean)
    a2.weight.zero_()
    space: Float[Tensor, "d_a d"] = directions([contrasts(e.meanings) for e in examples], len(planner.steering))
    planner.steering.copy_(strength * space)
    back = torch.linalg.pinv(space)

    def wanted(example: Example) -> tuple[list[int], list[Tensor]]:
        turns = [t for t, group in enumerate(example.replies) if len(group) == 2]
        return turns, list(contrasts(example.meanings) @ back) if turns else []

    return wanted


def _posterior_actions(posterior: Posterior) -> Wanted:
    def wanted(example: Example) -> tuple[list[int], list[Tensor]]:
        turns = [t for t, group in enumerate(example.replies) if group]
        return turns, [posterior(meaning)[0] for meaning in example.meanings]

    return wanted


def _regress(actor: Actor, known: Sequence[tuple[Tensor, Example]], wanted: Wanted) -> Ridge | None:
    """Set A1 to the ridge regression of the wanted actions on whitened states; an example's states stay together."""
    x: list[Tensor] = []
    y: list[Tensor] = []
    owner: list[int] = []
    for number, (states, example) in enumerate(known):
        turns, actions = wanted(example)
        x.append(actor.whiten(states[turns]))
        y += actions
        owner += [number] * len(turns)
    if not owner:
        return None
    found = ridge(torch.cat(x), torch.stack(y), torch.tensor(owner))
    actor.a1.weight.copy_(found.weight.T)
    actor.a1.bias.copy_(found.bias)
    return found
