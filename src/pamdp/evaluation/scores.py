"""What a scorer said of single replies, the file that keeps it, and the figures of one method.

Owns ALOE's measures (mean rating at each turn, and its slope over the turns) and the shares of PrefEval's categories,
with intervals over users. Knows nothing of language models.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import ConfigDict

from pamdp.evaluation.agreement import cohens_kappa
from pamdp.evaluation.records import grouped
from pamdp.evaluation.significance import Estimate, Statistic, cluster_bootstrap
from pamdp.judges.scores import CATEGORIES, Category


@dataclass(frozen=True, slots=True)
class Scored:
    """One scorer on one reply.

    Attributes:
      turn, sample: 0-based turn, and the seed of the method.
      rating: 1 to 5; None where none could be had.
      category: of adherence to a preference; None where it was not asked for, or could not be had.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    method: str
    scorer: str
    user_id: str
    dialogue_id: str
    turn: int
    sample: int
    rating: int | None = None
    category: Category | None = None


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """One method under one scorer.

    Attributes:
      rating, by_turn: mean of the ratings, 1 to 5; and that at each turn, from turn 1.
      slope: rating gained per turn, least squares over all replies; NaN where there is one turn only.
      followed: share of replies that keep to the preference; unknown where it was not asked for.
      n, masked: replies, and those of them without a rating.
      unread: replies whose category was asked for and could not be had.
    """

    method: str
    scorer: str
    rating: Estimate
    by_turn: tuple[float, ...]
    slope: Estimate
    followed: Estimate
    categories: dict[str, float]
    n: int
    masked: int
    unread: int


def report_scores(scores: Sequence[Scored], n: int = 10_000) -> ScoreReport:
    """The figures of one method under one scorer, from all of its scores, one or more, and N resamples."""
    users = [s.user_id for s in scores]
    rated = {i: (s.turn, s.rating) for i, s in enumerate(scores) if s.rating is not None}
    at = grouped(rated.values(), lambda pair: pair[0])
    by_turn = [[x for _, x in at.get(t, ())] for t in range(1 + max(at, default=-1))]
    said = [s.category for s in scores if s.category is not None]
    return ScoreReport(
        scores[0].method,
        scores[0].scorer,
        rating=cluster_bootstrap([s.rating for s in scores], users, n=n),
        by_turn=tuple(sum(xs) / len(xs) if xs else math.nan for xs in by_turn),
        slope=cluster_bootstrap([i if i in rated else None for i in range(len(scores))], users, _slope(rated), n),
        followed=cluster_bootstrap(
            [None if s.category is None else s.category == "followed" for s in scores], users, n=n
        ),
        categories={str(c): said.count(c) / len(said) for c in CATEGORIES} if said else {},
        n=len(scores),
        masked=len(scores) - len(rated),
        unread=len(scores) - len(said) if said else 0,
    )


def _slope(points: Mapping[int, tuple[int, int]]) -> Statistic:
    """Least-squares slope of y on x over resamples, NaN where x does not vary; values are numbers of points (x, y).

    Σ w (x − x̄)(y − ȳ) / Σ w (x − x̄)²
    """

    def statistic(values: Float[np.ndarray, " S"], weights: Float[np.ndarray, "B S"]) -> Float[np.ndarray, " B"]:
        x, y = np.array([points[int(i)] for i in values], dtype=np.float64).T
        total = weights.sum(-1)
        mean_x, mean_y = weights @ x / total, weights @ y / total
        spread = weights @ (x * x) / total - mean_x**2
        result: Float[np.ndarray, " B"] = np.full(len(weights), math.nan)
        np.divide(weights @ (x * y) / total - mean_x * mean_y, spread, out=result, where=spread > 1e-12)
        return result

    return statistic


def scorer_kappa(first: Sequence[Scored], second: Sequence[Scored]) -> tuple[float, float, int]:
    """Cohen's κ of two scorers on ratings and on categories of the same replies, and how many replies both rated.

    NaN where they share nothing of a kind.
    """
    others = {(s.method, s.dialogue_id, s.turn, s.sample): s for s in second}
    both = [(s, o) for s in first if (o := others.get((s.method, s.dialogue_id, s.turn, s.sample)))]
    ratings = [(a.rating, b.rating) for a, b in both if a.rating is not None and b.rating is not None]
    categories = [(a.category, b.category) for a, b in both if a.category is not None and b.category is not None]
    return _kappa(ratings), _kappa(categories), len(ratings)


def _kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float:
    return cohens_kappa([a for a, _ in pairs], [b for _, b in pairs]).value if pairs else math.nan
