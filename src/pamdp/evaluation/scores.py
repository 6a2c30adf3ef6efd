"""What a scorer said of single replies, the file that keeps it, and the figures of one method.

Owns ALOE's measures (mean rating at each turn, and its slope over the turns) and the shares of PrefEval's categories,
with intervals over users. Knows nothing of language models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import ConfigDict, TypeAdapter, ValidationError

from pamdp.errors import DataError
from pamdp.evaluation.agreement import cohens_kappa
from pamdp.evaluation.records import brief, read_utf8
from pamdp.evaluation.significance import UNKNOWN, Estimate, cluster_bootstrap
from pamdp.files import write_atomic
from pamdp.judges.scores import CATEGORIES, Category


@dataclass(frozen=True, slots=True)
class Scored:
    """One scorer on one reply.

    Attributes:
      method, scorer: who replied, and who scored.
      user_id, dialogue_id, turn: the state; turns count from 0.
      sample: the seed of the method.
      rating: 1 to 5; None where none could be had.
      category: of adherence to a preference; None where it was not asked for, or no answer could be had.
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


_ADAPTER = TypeAdapter(Scored)


def write_scores(path: Path, scores: Sequence[Scored]) -> None:
    """Write JSON lines, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(json.dumps(asdict(s), ensure_ascii=False) + "\n" for s in scores))


def read_scores(path: Path) -> list[Scored]:
    """Read JSON lines, all of them.

    Raises:
      DataError: the file is missing or not UTF-8, or a line is no score.
    """
    found = list[Scored]()
    for number, line in enumerate(read_utf8(path).split("\n"), 1):
        if line.strip():
            try:
                found.append(_ADAPTER.validate_json(line, strict=True))
            except ValidationError as error:
                raise DataError(f"not a score: {brief(error)}", path, number) from error
    return found


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """One method under one scorer.

    Attributes:
      rating: mean of the ratings, 1 to 5.
      by_turn: mean rating at each turn, from turn 1.
      slope: rating gained per turn, least squares over all replies; NaN where there is one turn only.
      followed: share of replies that keep to the preference; unknown where it was not asked for.
      categories: share of each category among the answers.
      n: replies.
      masked: replies without a rating.
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
    """The figures of one method under one scorer.

    Args:
      scores: all of them, of one method and one scorer; one or more.
      n: bootstrap resamples.
    """
    rated = [(s.turn, float(s.rating), s.user_id) for s in scores if s.rating is not None]
    sorted_in = [(s.category, s.user_id) for s in scores if s.category is not None]
    rating = slope = followed = UNKNOWN
    by_turn: tuple[float, ...] = ()
    if rated:
        users = [user for _, _, user in rated]
        rating = cluster_bootstrap([x for _, x, _ in rated], users, n=n)
        gain = Slope([t for t, _, _ in rated], [x for _, x, _ in rated])
        slope = cluster_bootstrap(np.arange(len(rated), dtype=np.float64), users, gain, n)
        last = max(t for t, _, _ in rated)
        at = [[x for t, x, _ in rated if t == turn] for turn in range(last + 1)]
        by_turn = tuple(sum(xs) / len(xs) if xs else math.nan for xs in at)
    if sorted_in:
        users = [user for _, user in sorted_in]
        followed = cluster_bootstrap([float(c == "followed") for c, _ in sorted_in], users, n=n)
    shares = {str(c): sum(x == c for x, _ in sorted_in) / len(sorted_in) for c in CATEGORIES} if sorted_in else {}
    return ScoreReport(
        scores[0].method, scores[0].scorer, rating, by_turn, slope, followed, shares, len(scores),
        sum(s.rating is None for s in scores), sum(s.category is None for s in scores) if sorted_in else 0,
    )  # fmt: skip


class Slope:
    """Least-squares slope of y on x over resamples; the values are the numbers of the pairs.

    Σ w (x − x̄)(y − ȳ) / Σ w (x − x̄)²
    """

    def __init__(self, x: Sequence[float], y: Sequence[float]) -> None:
        self.x, self.y = np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)

    def __call__(self, values: Float[np.ndarray, " S"], weights: Float[np.ndarray, "B S"]) -> Float[np.ndarray, " B"]:
        """The slope of every resample; NaN where x does not vary."""
        chosen = values.astype(np.int64)
        x, y, total = self.x[chosen], self.y[chosen], weights.sum(-1)
        mean_x, mean_y = weights @ x / total, weights @ y / total
        spread = weights @ (x * x) / total - mean_x**2
        result: Float[np.ndarray, " B"] = np.full(len(weights), math.nan)
        np.divide(weights @ (x * y) / total - mean_x * mean_y, spread, out=result, where=spread > 1e-12)
        return result


def scorer_kappa(first: Sequence[Scored], second: Sequence[Scored]) -> tuple[float, float, int]:
    """Cohen's κ of two scorers on ratings and on categories of the same replies, and how many replies both rated.

    NaN where they share nothing of a kind.
    """
    places = {(s.method, s.dialogue_id, s.turn, s.sample): s for s in second}
    both = [(s, places[key]) for s in first if (key := (s.method, s.dialogue_id, s.turn, s.sample)) in places]
    rated = [(a.rating, b.rating) for a, b in both if a.rating is not None and b.rating is not None]
    sorted_in = [(a.category, b.category) for a, b in both if a.category is not None and b.category is not None]
    ratings = cohens_kappa([a for a, _ in rated], [b for _, b in rated]) if rated else math.nan
    categories = cohens_kappa([a for a, _ in sorted_in], [b for _, b in sorted_in]) if sorted_in else math.nan
    return ratings, categories, len(rated)
