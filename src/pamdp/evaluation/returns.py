"""Returns of dialogues, step by step, with intervals: what Table 3 and Figure 4 of the paper show.

Owns the return at every step, the gain between steps and paired differences of methods. Knows nothing of dialogues and
judges. A masked reward is left out of its step; it is never counted as 0. Users are what is resampled.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from pamdp.evaluation.records import grouped, require_unique
from pamdp.evaluation.significance import UNKNOWN, Estimate, cluster_bootstrap, sign_flip_p


@dataclass(frozen=True, slots=True)
class Step:
    """The reward r_t of one reply, None where it is masked; turns count from 0, and users are the independent units."""

    method: str
    judge: str
    user_id: str
    dialogue_id: str
    seed: int
    turn: int
    reward: float | None


@dataclass(frozen=True, slots=True)
class Curve:
    """A method under a judge; `masked` replies have no reward.

    Attributes:
      returns: R_t = r_1 + ... + r_t after each step, undiscounted, mean over dialogues; the last is the final return.
      gains: R_t − R_{t−1}, the mean reward of each step.
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


def curves(steps: Sequence[Step], *, n: int = 10_000) -> list[Curve]:
    """The curve of every method under every judge, from N resamples; a DataError where a reply was graded twice."""
    out = []
    for (method, judge), mine in _by_method(steps).items():
        gains = tuple(_sum(mine, [t], n) for t in _turns(mine))
        out.append(Curve(method, judge, _returns(mine, n), gains, sum(s.reward is None for s in mine)))
    return out


def leads(steps: Sequence[Step], others: Sequence[str], *, n: int = 10_000) -> list[Lead]:
    """Every method against every one of OTHERS, under each judge, whatever the order of the methods; else as `curves`.

    Of two of OTHERS, the later one there is held against the earlier one, and not again the other way round.
    """
    groups, out = _by_method(steps), list[Lead]()
    for i, other in enumerate(others):
        for (method, judge), mine in groups.items():
            if (other, judge) in groups and method not in others[: i + 1]:
                pairs = _less(mine, groups[other, judge])
                out.append(Lead(method, other, judge, _returns(pairs, n), _p(pairs, n)))
    return out


def _by_method(steps: Sequence[Step]) -> dict[tuple[str, str], list[Step]]:
    """The steps of every method under every judge."""
    require_unique(steps, lambda s: (s.method, s.judge, s.dialogue_id, s.seed, s.turn))
    return grouped(steps, lambda s: (s.method, s.judge))


def _less(mine: Sequence[Step], theirs: Sequence[Step]) -> list[Step]:
    """Steps with the difference as their reward; masked where either is."""
    out, other = [], {(s.dialogue_id, s.seed, s.turn): s.reward for s in theirs}
    for s in mine:
        less = other.get((s.dialogue_id, s.seed, s.turn))
        out.append(replace(s, reward=None if s.reward is None or less is None else s.reward - less))
    return out


def _turns(steps: Sequence[Step]) -> range:
    return range(1 + max(s.turn for s in steps))


def _returns(steps: Sequence[Step], n: int) -> tuple[Estimate, ...]:
    return tuple(_sum(steps, range(t + 1), n) for t in _turns(steps))


def _sum(steps: Sequence[Step], turns: Sequence[int], n: int) -> Estimate:
    """Σ_t mean reward of step t; unknown where a step has none."""
    known = [s for s in steps if s.reward is not None and s.turn in turns]
    members = np.array([[s.turn == t for s in known] for t in turns], dtype=float)

    def summed(values: Float[np.ndarray, " S"], weights: Float[np.ndarray, "B S"]) -> Float[np.ndarray, " B"]:
        count = weights @ members.T
        # A resample without a value at some step has no return: it is not a number, and left out.
        means = np.divide((weights * values) @ members.T, count, out=np.full_like(count, np.nan), where=count > 0)
        total: Float[np.ndarray, " B"] = means.sum(-1)
        return total

    if not members.any(1).all():
        return UNKNOWN
    return cluster_bootstrap([s.reward for s in known], [s.user_id for s in known], summed, n)


def _p(steps: Sequence[Step], n: int) -> float:
    count = Counter(s.turn for s in steps if s.reward is not None)
    if len(count) < len(_turns(steps)):
        return math.nan
    # Divided by how many share its step, the values add up to the difference of the final returns.
    values = [None if s.reward is None else s.reward / count[s.turn] for s in steps]
    return sign_flip_p(values, [s.user_id for s in steps], n)
