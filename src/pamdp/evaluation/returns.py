"""Returns of dialogues, step by step, with intervals: what Table 3 and Figure 4 of the paper show.

Owns the return at every step, the gain between steps and paired differences of methods. Knows nothing of dialogues and
judges. A masked reward is left out of its step; it is never counted as 0. Users are what is resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pamdp.errors import DataError
from pamdp.evaluation.significance import UNKNOWN, Estimate, Statistic, cluster_bootstrap, sign_flip_p


@dataclass(frozen=True, slots=True)
class Step:
    """The reward of one reply.

    Attributes:
      method: who replied.
      judge: who graded.
      user_id: whose dialogue it is; users are the independent units.
      dialogue_id, seed, turn: which dialogue, which draw of it, and its 0-based turn.
      reward: r_t, or None where it is masked.
    """

    method: str
    judge: str
    user_id: str
    dialogue_id: str
    seed: int
    turn: int
    reward: float | None


@dataclass(frozen=True, slots=True)
class Curve:
    """A method under a judge.

    Attributes:
      returns: R_t = r_1 + ... + r_t after each step, undiscounted, mean over dialogues; the last is the final return.
      gains: R_t − R_{t−1}, the mean reward of each step.
      masked: replies without a reward.
    """

    method: str
    judge: str
    returns: tuple[Estimate, ...]
    gains: tuple[Estimate, ...]
    masked: int


@dataclass(frozen=True, slots=True)
class Lead:
    """By how much the return of `method` is above that of `other`, paired by user, seed and step.

    Attributes:
      returns: difference of R_t after each step.
      p_value: sign-flip test of the last one over users; NaN where nothing is paired.
    """

    method: str
    other: str
    judge: str
    returns: tuple[Estimate, ...]
    p_value: float


def curves(steps: Sequence[Step], *, n: int = 10_000, seed: int = 0) -> list[Curve]:
    """The curve of every method under every judge, in the order in which they first appear.

    Args:
      n: bootstrap resamples.
      seed: of the resamples.

    Raises:
      DataError: one reply was graded twice by one judge.
    """
    out = []
    for (method, judge), found in _groups(steps).items():
        kept = [(s.turn, s.reward, s.user_id) for s in found.values() if s.reward is not None]
        horizon = 1 + max(s.turn for s in found.values())
        gains = tuple(_sum([x for x in kept if x[0] == t], [t], n, seed) for t in range(horizon))
        out.append(Curve(method, judge, _returns(kept, horizon, n, seed), gains, len(found) - len(kept)))
    return out


def leads(steps: Sequence[Step], others: Sequence[str], *, n: int = 10_000, seed: int = 0) -> list[Lead]:
    """Every method against every one of OTHERS, under each judge, whatever the order of the methods.

    Of two of OTHERS, the later one there is held against the earlier one, and not again the other way round.

    Raises:
      DataError: one reply was graded twice by one judge.
    """
    groups, out = _groups(steps), list[Lead]()
    for i, other in enumerate(others):
        for (method, judge), mine in groups.items():
            if (other, judge) not in groups or method in others[: i + 1]:
                continue
            theirs = groups[other, judge]
            pairs = [
                (s.turn, s.reward - other_reward, s.user_id)
                for key, s in mine.items()
                if s.reward is not None and key in theirs and (other_reward := theirs[key].reward) is not None
            ]
            horizon = 1 + max(s.turn for s in mine.values())
            out.append(Lead(method, other, judge, _returns(pairs, horizon, n, seed), _p(pairs, horizon, n, seed)))
    return out


_Value = tuple[int, float, str]
"""Step, value, user."""


def _groups(steps: Sequence[Step]) -> dict[tuple[str, str], dict[tuple[str, int, int], Step]]:
    groups: dict[tuple[str, str], dict[tuple[str, int, int], Step]] = {}
    for step in steps:
        group = groups.setdefault((step.method, step.judge), {})
        key = (step.dialogue_id, step.seed, step.turn)
        if key in group:
            raise DataError(
                f"{step.judge} graded turn {step.turn} of dialogue {step.dialogue_id} by {step.method} twice"
            )
        group[key] = step
    return groups


def _returns(values: Sequence[_Value], horizon: int, n: int, seed: int) -> tuple[Estimate, ...]:
    return tuple(_sum([x for x in values if x[0] <= t], range(t + 1), n, seed) for t in range(horizon))


def _sum(values: Sequence[_Value], turns: Sequence[int], n: int, seed: int) -> Estimate:
    """Σ_t mean of the values at step t; unknown where a step has none."""
    at = np.array([turn for turn, _, _ in values])
    if not all((at == turn).any() for turn in turns):
        return UNKNOWN
    members = np.stack([at == turn for turn in turns]).astype(float)
    return cluster_bootstrap([x for _, x, _ in values], [user for _, _, user in values], _summed(members), n, seed)


def _summed(members: Float[np.ndarray, "T S"]) -> Statistic:
    def statistic(values: Float[np.ndarray, " S"], weights: Float[np.ndarray, "B S"]) -> Float[np.ndarray, " B"]:
        count = weights @ members.T
        # A resample without a value at some step has no return: it is not a number, and left out.
        means = np.divide((weights * values) @ members.T, count, out=np.full_like(count, np.nan), where=count > 0)
        total: Float[np.ndarray, " B"] = means.sum(-1)
        return total

    return statistic


def _p(values: Sequence[_Value], horizon: int, n: int, seed: int) -> float:
    counts = np.bincount([turn for turn, _, _ in values], minlength=horizon)
    if not counts.all():
        return float("nan")
    # Divided by how many share its step, the values add up to the difference of the final returns.
    return sign_flip_p([x / counts[turn] for turn, x, _ in values], [user for _, _, user in values], n, seed)
