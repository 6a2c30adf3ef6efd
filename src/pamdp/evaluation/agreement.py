"""Whether verdicts agree: two judges on one comparison, and one judge with itself in the other order.

Owns Cohen's kappa and its uses on judgements. Knows nothing of how a judge decides.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from pamdp.errors import DataError
from pamdp.evaluation.records import Judgement
from pamdp.evaluation.significance import Estimate, cluster_bootstrap


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two raters on the same comparisons.

    Attributes:
      first: the first judge.
      second: the second one; for one judge in both orders, the same name.
      n: comparisons that both decided.
      same: share of equal verdicts.
      kappa: Cohen's kappa, with its interval over users.
      first_shown: of the decided verdicts of one judge in both orders, the share for the reply that was shown first;
        0.5 has no position bias; NaN between two judges.
    """

    first: str
    second: str
    n: int
    same: float
    kappa: Estimate
    first_shown: float = math.nan


def cohens_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Cohen's kappa: agreement beyond what the raters' habits give by chance.

        κ = (p_o − p_e) / (1 − p_e)

    NaN where both raters always say one and the same thing: chance alone gives full agreement.

    Raises:
      DataError: no items, or not as many of one as of the other.
    """
    values, statistic = _kappa_statistic(first, second)
    return float(statistic(values, np.ones((1, values.size)))[0])


def between_judges(judgements: Sequence[Judgement], kind: str = "eval", n: int = 2_000) -> list[Agreement]:
    """Agreement of every two judges on the comparisons that both decided."""
    said: dict[str, dict[tuple[object, ...], Judgement]] = {}
    for j in judgements:
        if j.kind == kind and not j.masked:
            said.setdefault(j.judge, {})[(j.method, j.baseline, *j.state, j.sample)] = j
    result = list[Agreement]()
    for a, b in combinations(said, 2):
        shared = [(said[a][key], said[b][key]) for key in said[a] if key in said[b]]
        if shared:
            pairs = [(x.outcome, y.outcome) for x, y in shared]
            result.append(_agreement(a, b, pairs, [x.cluster for x, _ in shared], n))
    return result


def between_orders(judgements: Sequence[Judgement], kind: str = "eval", n: int = 2_000) -> list[Agreement]:
    """Agreement of each judge with itself when the replies change places; without recorded orders it is left out."""
    kept: dict[str, list[Judgement]] = {}
    for j in judgements:
        if j.kind == kind and not j.masked and j.orders is not None:
            kept.setdefault(j.judge, []).append(j)
    result = list[Agreement]()
    for judge, records in kept.items():
        orders = [j.orders for j in records if j.orders is not None]
        shown_first = sum((a == "win") + (b == "loss") for a, b in orders)
        decided = sum((a != "tie") + (b != "tie") for a, b in orders)
        bias = shown_first / decided if decided else math.nan
        result.append(_agreement(judge, judge, orders, [j.cluster for j in records], n, bias))
    return result


def _agreement(
    first: str, second: str, pairs: Sequence[tuple[str, str]], clusters: Sequence[str], n: int, bias: float = math.nan
) -> Agreement:
    values, statistic = _kappa_statistic([a for a, _ in pairs], [b for _, b in pairs])
    kappa = cluster_bootstrap(values, clusters, statistic, n=n)
    return Agreement(first, second, len(pairs), sum(a == b for a, b in pairs) / len(pairs), kappa, bias)


class _Kappa:
    """Kappa of resamples: each value is the cell of the K x K table that its item falls into."""

    def __init__(self, categories: int) -> None:
        self.categories = categories

    def __call__(self, values: Float[np.ndarray, " S"], weights: Float[np.ndarray, "B S"]) -> Float[np.ndarray, " B"]:
        cells = np.eye(self.categories**2)[values.astype(np.int64)]
        table = (weights @ cells / weights.sum(-1, keepdims=True)).reshape(-1, self.categories, self.categories)
        observed = np.trace(table, axis1=1, axis2=2)
        chance = (table.sum(2) * table.sum(1)).sum(-1)
        room = 1 - chance
        result: Float[np.ndarray, " B"] = np.full(len(table), math.nan)
        np.divide(observed - chance, room, out=result, where=room > 1e-12)
        return result


def _kappa_statistic(first: Sequence[Hashable], second: Sequence[Hashable]) -> tuple[Float[np.ndarray, " S"], _Kappa]:
    if not first or len(first) != len(second):
        raise DataError(f"kappa needs as many verdicts of one as of the other, got {len(first)} and {len(second)}")
    number: dict[Hashable, int] = {}
    for item in (*first, *second):
        number.setdefault(item, len(number))
    size = len(number)
    cells = [number[a] * size + number[b] for a, b in zip(first, second, strict=True)]
    return np.array(cells, dtype=np.float64), _Kappa(size)
