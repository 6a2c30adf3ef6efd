"""How sure a mean over states is, when the turns of one user are not independent of each other.

Owns resampling: cluster bootstrap intervals and a sign-flip test; and the correction for many tests. Knows nothing of
judges, methods and files. A cluster is what was drawn independently: a user with all dialogues and turns. Everything is
a function of the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int, UInt8

from pamdp.errors import DataError

Statistic = Callable[[Float[np.ndarray, " S"], Float[np.ndarray, "B S"]], Float[np.ndarray, " B"]]
"""(values of S states, B rows of multiplicities of the states) -> the statistic of B resamples."""

_CHUNK = 2**21  # weights held at a time: 16 MB


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval.

    Attributes:
      value: the statistic on the data as they are; NaN where there are none.
      low: lower end; NaN where fewer than two clusters leave nothing to resample.
      high: upper end.
      n: states that entered.
      clusters: independent units (users) that the states belong to.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int

    @property
    def sign(self) -> int:
        """+1 where the whole interval is above 0, −1 where it is below, 0 where it holds 0 or there is none."""
        return int(self.low > 0) - int(self.high < 0)


UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0, 0)
"""The estimate of what was never measured."""


def mean(values: Float[np.ndarray, " S"], weights: Float[np.ndarray, "B S"]) -> Float[np.ndarray, " B"]:
    """Weighted mean over states: Σ w·x / Σ w, so that a user with more turns weighs more."""
    result: Float[np.ndarray, " B"] = weights @ values / weights.sum(-1)
    return result


def cluster_bootstrap(
    values: Sequence[float] | Float[np.ndarray, " S"],
    clusters: Sequence[Hashable],
    statistic: Statistic = mean,
    n: int = 10_000,
    seed: int = 0,
    *,
    level: float = 0.95,
    expanded: bool = True,
) -> Estimate:
    """Percentile interval from resampling whole clusters with replacement.

    The plain percentile interval is too short with few clusters (with 12 users it covers 92 % instead of 95 %), so by
    default the percentiles are moved outwards as a t interval is wider than a normal one (Hesterberg 2015,
    "expanded percentile interval"): α/2 becomes Φ(−t_{α/2, C−1}·√(C/(C−1))).

    Args:
      values: one number per state.
      clusters: the cluster of each state, for example its user.
      statistic: what is estimated; it sees multiplicities, so that all resamples are computed at once.
      n: resamples.
      seed: equal seeds, and clusters that first appear in the same order, give equal resamples.
      level: coverage that is aimed at.
      expanded: widen for few clusters.

    Raises:
      DataError: no states, not as many clusters as values, a value that is not finite, or a bad level or n.
    """
    x, index, count = _clustered(values, clusters)
    if not 0 < level < 1 or n < 1:
        raise DataError(f"a bootstrap needs 0 < level < 1 and n >= 1, got {level} and {n}")
    value = float(statistic(x, np.ones((1, x.size)))[0])
    if count < 2:
        return Estimate(value, math.nan, math.nan, x.size, count)
    times, draws = _multiplicities(count, n, seed), list[Float[np.ndarray, " B"]]()
    rows = max(1, _CHUNK // x.size)
    for start in range(0, n, rows):
        draws.append(statistic(x, times[start : start + rows, index].astype(np.float64)))
    tail = (1 - level) / 2
    if expanded:
        tail = NormalDist().cdf(-student_t(1 - tail, count - 1) * math.sqrt(count / (count - 1)))
    drawn = np.concatenate(draws)
    drawn = drawn[np.isfinite(drawn)]  # a resample may leave a ratio undefined (kappa of a constant rater)
    if not drawn.size:
        return Estimate(value, math.nan, math.nan, x.size, count)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), x.size, count)


def sign_flip_p(
    values: Sequence[float] | Float[np.ndarray, " S"], clusters: Sequence[Hashable], n: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p-value of "the mean is 0", by flipping the sign of whole clusters.

    Exact where all 2^C flips are no more than n; otherwise (1 + hits) / (1 + n) over n random flips, never 0. It shares
    no assumption with the bootstrap but the clusters: a second opinion.

    Raises:
      DataError: as `cluster_bootstrap`.
    """
    x, index, count = _clustered(values, clusters)
    sums = np.bincount(index, weights=x, minlength=count)
    observed = abs(float(sums.sum())) * (1 - 1e-12)  # equal sums in another order must count as equal
    if 2**count <= n:
        bits = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        return float((np.abs((1.0 - 2.0 * bits) @ sums) >= observed).mean())
    rng, hits, rows = np.random.default_rng(seed), 0, max(1, _CHUNK // count)
    for start in range(0, n, rows):
        signs = rng.integers(0, 2, size=(min(rows, n - start), count)) * 2.0 - 1.0
        hits += int((np.abs(signs @ sums) >= observed).sum())
    return (1 + hits) / (1 + n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: p-values that keep the chance of any false finding among all of them below their level.

        p̃_(i) = max_{j≤i} min(1, (m − j + 1)·p_(j))

    A value that is not a number takes part in nothing and stays.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p == p)
    out, highest = list(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        out[i] = highest
    return out


def student_t(probability: float, degrees: int) -> float:
    """Quantile of Student's t above the median, by the expansion 26.7.5 of Abramowitz and Stegun.

    Good to 1e-4 from eight degrees on; below, the quantile is so far out that the extremes are taken anyway.
    """
    z, d = NormalDist().inv_cdf(probability), float(degrees)
    return (
        z
        + (z**3 + z) / (4 * d)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * d**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * d**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * d**4)
    )


@lru_cache(maxsize=2)
def _multiplicities(count: int, n: int, seed: int) -> UInt8[np.ndarray, "n C"]:
    """How often each of C clusters is in each of n resamples; kept, since a report asks for one table again and again.

    A byte holds it: with C <= 255 nothing is larger, and above that a multiplicity over 255 does not happen.
    """
    rng, even, rows = np.random.default_rng(seed), np.full(count, 1 / count), max(1, _CHUNK // count)
    table = np.empty((n, count), dtype=np.uint8)
    for start in range(0, n, rows):
        table[start : start + rows] = rng.multinomial(count, even, size=min(rows, n - start))
    table.setflags(write=False)
    return table


def _clustered(
    values: Sequence[float] | Float[np.ndarray, " S"], clusters: Sequence[Hashable]
) -> tuple[Float[np.ndarray, " S"], Int[np.ndarray, " S"], int]:
    """Values, the number of each one's cluster, and how many clusters there are.

    Clusters are numbered by first appearance: names of any kind, and nothing depends on their spelling.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or x.size != len(clusters):
        raise DataError(f"one cluster for each of one or more values: got shape {x.shape} and {len(clusters)} clusters")
    if not np.isfinite(x).all():
        raise DataError("a value is not finite; mask its state instead")
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.int64)
    return x, index, len(numbers)
