"""The problems of the lab: random ones in five regimes, and a few with a name and a point.

Owns their fixed definitions: nothing here was chosen by looking at an estimator's result. Knows nothing of solving.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from pamdp.errors import ConfigError
from pamdp.lab.tabular import TabularPamdp, TabularStep

Regime = Literal["static", "offset", "terminal", "evolving", "memoryless"]
REGIMES: tuple[Regime, ...] = get_args(Regime)
GAMMA = 0.95


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def random_pamdps(
    regime: Regime, count: int, *, seed: int, horizon: int = 3
) -> tuple[TabularPamdp, list[Float[Tensor, "N H U"]], list[Float[Tensor, "N H d"]]]:
    """Random problems of one regime, and a random policy for each: its logits, and the features that give them.

    Rewards of (ω, u) and the logits of p(ω_0) and of p(o | last o, ω, u) are N(0, 1). The policy is softmax(φ(h)·A),
    the four features φ(h) and A all N(0, ½), so that its logits have variance 1. The regimes: benchmark.toml;
    an unknown one is a ConfigError.
    """
    if regime not in REGIMES:
        raise ConfigError(f"unknown regime {regime!r}; known: {', '.join(REGIMES)}")
    g = torch.Generator().manual_seed(seed)
    n, w, u, o = count, 3, 2, 2
    start = _normal(g, n, w).softmax(-1)
    reward = _normal(g, n, 1, w, u)
    offset = 2 * _normal(g, n, 1, w, 1)
    by_last = _normal(g, n, o, w, u, o).softmax(-1)
    evolving = _normal(g, n, 1, w, u, o, w).softmax(-1)
    kept = torch.eye(w, dtype=torch.float64)[:, None, None, :]
    drift = {"evolving": evolving, "memoryless": start[:, None, None, None, None, :]}.get(regime, kept)
    turns = []
    for t in range(horizon):
        h = (u * o) ** t
        here = reward + offset if regime == "offset" else reward
        if regime == "terminal" and t < horizon - 1:
            here = torch.zeros_like(here)
        answer = by_last[:, torch.arange(h) % o]
        turns.append(TabularStep(here.expand(n, h, w, u), answer, drift.expand(n, h, w, u, o, w)))
    features = [0.5**0.5 * _normal(g, n, (u * o) ** t, 4) for t in range(horizon)]
    weights = 0.5**0.5 * _normal(g, n, 4, u)
    return TabularPamdp(start, tuple(turns), GAMMA), [phi @ weights for phi in features], features


def persona(*, offset: float = 0.0, resample: float = 0.0, terminal: bool = False, horizon: int = 3) -> TabularPamdp:
    """A user of one of two kinds, and two styles to answer in (benchmark.toml).

    Args:
      offset: ± this much on every reward, by profile: a user who is easy or hard to please.
      resample: probability that the profile is drawn anew after a turn; 1 is memoryless.
      terminal: reward the last turn only.
      horizon: T.
    """
    match = 2 * torch.eye(2, dtype=torch.float64) - 1 + offset * torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    tells = (0.6 * torch.eye(2, dtype=torch.float64) + 0.2)[:, None, :].expand(2, 2, 2)
    drift = (1 - resample) * torch.eye(2, dtype=torch.float64) + resample / 2
    rewards = [match if not terminal or t == horizon - 1 else torch.zeros_like(match) for t in range(horizon)]
    return _stationary(rewards, tells, drift)


def ask(*, offset: float = 0.0, horizon: int = 3) -> TabularPamdp:
    """Ask first, then serve (benchmark.toml). The answer to a guess says nothing; asking pays in later turns only.

    Args:
      offset: ± this much on every reward, by profile.
      horizon: T.
    """
    reward = torch.tensor([[-0.25, 1, -1], [-0.25, -1, 1]], dtype=torch.float64)
    reward = reward + offset * torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    answer = torch.zeros(2, 3, 3, dtype=torch.float64)
    answer[0, 0, 1] = answer[1, 0, 2] = 1.0
    answer[:, 1:, 0] = 1.0
    return _stationary([reward] * horizon, answer, torch.eye(2, dtype=torch.float64))


def seven_problems() -> dict[str, TabularPamdp]:
    """The problems, T = 3, on which the estimators are compared with learned critics."""
    return {
        "persona, no offset": persona(),
        "persona + offset 2": persona(offset=2),
        "memoryless + 2": persona(offset=2, resample=1.0),
        "drift .5 + 2": persona(offset=2, resample=0.5),
        "terminal reward": persona(terminal=True),
        "ask": ask(),
        "ask + 2": ask(offset=2),
    }


def _stationary(rewards: list[Tensor], answer: Tensor, drift: Tensor) -> TabularPamdp:
    """One problem whose dynamics do not depend on the history; p(ω_0) uniform."""
    w, u, o = answer.shape
    sizes = [(1, (u * o) ** t, w, u) for t in range(len(rewards))]
    turns = tuple(
        TabularStep(reward.expand(size), answer.expand(*size, o), drift[:, None, None, :].expand(*size, o, w))
        for reward, size in zip(rewards, sizes, strict=True)
    )
    return TabularPamdp(torch.full((1, w), 1 / w, dtype=torch.float64), turns, GAMMA)
