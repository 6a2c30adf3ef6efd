"""Figures of merit that are plain arithmetic.

Owns Eq. 15 and how well a critic predicts. Knows nothing of judges, runs and intervals.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from pamdp.errors import DataError
from pamdp.rl.checks import kept


def success_rate(wins: int, losses: int, ties: int) -> float:
    """Success rate against one opponent, Eq. 15; in [−1, 1].

        r_w = (N_w − N_l) / (N_w + N_l + N_e)

    Raises:
      DataError: a count is negative, or there are no comparisons.
    """
    _require_counts(wins, losses, ties)
    return (wins - losses) / (wins + losses + ties)


def win_rate(wins: int, losses: int) -> float:
    """Traditional win rate, to which the paper contrasts Eq. 15; ties do not count; in [0, 1].

        N_w / (N_w + N_l)

    Raises:
      DataError: a count is negative, or nothing was decided.
    """
    _require_counts(wins, losses)
    return wins / (wins + losses)


def explained_variance(
    prediction: Float[Tensor, "..."], target: Float[Tensor, "..."], mask: Bool[Tensor, "..."] | None = None
) -> float:
    """Share of the target's variance that a critic explains; 1 perfect, 0 a constant, below 0 worse than one.

        1 − Var[target − prediction] / Var[target]

    NaN where the target does not vary (or fewer than two entries count): there is nothing to explain.

    Raises:
      ShapeError: shapes differ.
    """
    prediction, target = kept(mask, prediction=prediction, target=target)
    if target.numel() < 2:
        return float("nan")
    total = target.double().var(correction=0)
    if total <= 0:
        return float("nan")
    return float(1 - (target.double() - prediction.double()).var(correction=0) / total)


def _require_counts(*counts: int) -> None:
    if min(counts) < 0 or sum(counts) == 0:
        raise DataError(f"a rate needs counts that are not negative and not all zero, got {counts}")
