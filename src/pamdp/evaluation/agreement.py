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
from pamdp.evaluation.records import Judgement, graded, grouped
from pamdp.evaluation.significance import Estimate, Statistic, cluster_bootstrap


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two raters on the same comparisons.

    Attributes:
      n, same: comparisons that both decided, and the share of equal verdicts.
      first_shown: share of one judge's decided verdicts for the reply shown first; 0.5 has no position bias.
    """

    first: str
    second: str
    n: int
    same: float
    kappa: Estimate
    first_shown: float = math.nan

    @classmethod
    def of(
        cls, first: str, second: str, pairs: Sequence[tuple[str, str]], clusters: Sequence[str], n: int = 2_000,
        bias: float = math.nan,
    ) -> Agreement:  # fmt: skip
        """Agreement on answers of any kind, such as grades; CLUSTERS has the user of each pair of them."""
        kappa = cohens_kappa([a for a, _ in pairs], [b for _, b in pairs], clusters, n)
        return cls(first, second, len(pairs), sum(a == b for a, b in pairs) / len(pairs), kappa, bias)


def cohens_kappa(
    first: Sequence[Hashable], second: Sequence[Hashable], clusters: Sequence[Hashable] | None = None, n: int = 1
) -> Estimate:
    """Cohen's kappa: agreement beyond what the raters' habits give by chance.

        κ = (p_o − p_e) / (1 − p_e)

    NaN where both raters always say one and the same thing: chance alone gives full agreement. Clusters are what is
    resampled for an interval; without them there is none. A DataError says that items are missing.
    """
    if not first or len(first) != len(second):
        raise DataError(f"kappa needs as many verdicts of one as of the other, got {len(first)} and {len(second)}")
    number = {item: i for i, item in enumerate(dict.fromkeys((*first, *second)))}
    cells = [number[a] * len(number) + number[b] for a, b in zip(first, second, strict=True)]
    return cluster_bootstrap(cells, clusters or [0] * len(cells), _kappa(len(number)), n)


def between_judges(judgements: Sequence[Judgement], n: int = 2_000) -> list[Agreement]:
    """Agreement of every two judges on the comparisons that both decided."""
    decided = grouped((j for j in graded(judgements) if not j.masked), lambda j: j.judge)
    said = {judge: {j.comparison: j for j in found} for judge, found in decided.items()}
    result = list[Agreement]()
    for a, b in combinations(said, 2):
        if shared := [(j, said[b][key]) for key, j in said[a].items() if key in said[b]]:
            pairs = [(x.outcome, y.outcome) for x, y in shared]
            result.append(Agreement.of(a, b, pairs, [x.cluster for x, _ in shared], n))
    return result


def between_orders(judgements: Sequence[Judgement], n: int = 2_000) -> list[Agreement]:
    """Agreement of each judge with itself when the replies change places; without recorded orders it is left out."""
    decided = [(j, j.orders) for j in graded(judgements) if not j.masked and j.orders is not None]
    result = list[Agreement]()
    for judge, found in grouped(decided, lambda pair: pair[0].judge).items():
        orders = [pair for _, pair in found]
        shown_first = sum((a == "win") + (b == "loss") for a, b in orders)
        verdicts = sum((a != "tie") + (b != "tie") for a, b in orders)
        bias = shown_first / verdicts if verdicts else math.nan
        result.append(Agreement.of(judge, judge, orders, [j.cluster for j, _ in found], n, bias))
    return result


def _kappa(categories: int) -> Statistic:
    """Kappa of resamples: each value is the cell of the K x K table that its item falls into."""

    def statistic(values: Float[np.ndarray, " S"], weights: Float[np.ndarray, "B S"]) -> Float[np.ndarray, " B"]:
        cells = np.eye(categories**2)[values.astype(np.int64)]
        table = (weights @ cells / weights.sum(-1, keepdims=True)).reshape(-1, categories, categories)
        observed, chance = np.trace(table, axis1=1, axis2=2), (table.sum(2) * table.sum(1)).sum(-1)
        result: Float[np.ndarray, " B"] = np.full(len(table), math.nan)
        np.divide(observed - chance, 1 - chance, out=result, where=1 - chance > 1e-12)
        return result

    return statistic
