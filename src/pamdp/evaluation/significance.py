"""How sure a mean over states is, when the turns of one user are not independent of each other.

Owns resampling (cluster bootstrap, sign flips) and the correction for many tests. Knows nothing of judges and files. A
cluster is what was drawn independently: a user with all dialogues and turns. Equal values have equal intervals.
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
      low, high: ends of the interval; NaN where fewer than two clusters leave nothing to resample.
      n, clusters: states that entered, and independent units (users) that they belong to.
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
    values: Sequence[float | None] | Float[np.ndarray, " S"],
    clusters: Sequence[Hashable],
    statistic: Statistic = mean,
    n: int = 10_000,
) -> Estimate:
    """95 % percentile interval from resampling whole clusters with replacement, the same N times for as many clusters.

    The plain percentile interval is too short with few clusters (with 12 users it covers 92 % instead of 95 %), so the
    percentiles are moved outwards as a t interval is wider than a normal one (Hesterberg 2015, "expanded percentile
    interval"): α/2 becomes Φ(−t_{α/2, C−1}·√(C/(C−1))).

    Args:
      values: one number per state, or None where it is masked: it is left out, and where all are, nothing is known.
      statistic: what is estimated; it sees multiplicities, so that all N resamples are computed at once.

    Raises:
      DataError: no states, not as many clusters as values, a value that is not finite, or n < 1.
    """
    if n < 1:
        raise DataError(f"a bootstrap needs one or more resamples, got {n}")
    x, index, count = _clustered(values, clusters)
    if not count:
        return UNKNOWN
    value = float(statistic(x, np.ones((1, x.size)))[0])
    if count == 1:
        return Estimate(value, math.nan, math.nan, x.size, count)
    times, rows = _multiplicities(count, n), max(1, _CHUNK // x.size)
    chunks = (times[start : start + rows, index].astype(np.float64) for start in range(0, n, rows))
    drawn = np.concatenate([statistic(x, weights) for weights in chunks])
    drawn = drawn[np.isfinite(drawn)]  # a resample may leave a ratio undefined (kappa of a constant rater)
    tail = NormalDist().cdf(-student_t(0.975, count - 1) * math.sqrt(count / (count - 1)))
    low, high = np.quantile(drawn, [tail, 1 - tail]) if drawn.size else (math.nan, math.nan)
    return Estimate(value, float(low), float(high), x.size, count)


def sign_flip_p(
    values: Sequence[float | None] | Float[np.ndarray, " S"], clusters: Sequence[Hashable], n: int = 10_000
) -> float:
    """Two-sided p-value of "the mean is 0", by flipping the sign of whole clusters; NaN where nothing is known.

    Exact where all 2^C flips are no more than n; otherwise (1 + hits) / (1 + n) over n random flips, never 0. It shares
    no assumption with the bootstrap but the clusters: a second opinion, which refuses what the bootstrap refuses.
    """
    x, index, count = _clustered(values, clusters)
    if not count:
        return math.nan
    sums = np.bincount(index, weights=x, minlength=count)
    observed = abs(float(sums.sum())) * (1 - 1e-12)  # equal sums in another order must count as equal
    if 2**count <= n:
        bits = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        return float((np.abs((1.0 - 2.0 * bits) @ sums) >= observed).mean())
    rng, rows = np.random.default_rng(0), max(1, _CHUNK // count)
    flips = (rng.integers(0, 2, size=(min(rows, n - start), count)) for start in range(0, n, rows))
    hits = sum(int((np.abs((flip * 2.0 - 1.0) @ sums) >= observed).sum()) for flip in flips)
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
    first, second = (z**3 + z) / (4 * d), (5 * z**5 + 16 * z**3 + 3 * z) / (96 * d**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * d**3)
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * d**4)
    return z + first + second + third + fourth


@lru_cache(maxsize=2)
def _multiplicities(count: int, n: int) -> UInt8[np.ndarray, "n C"]:
    """How often each of C clusters is in each of n resamples, never over 255; kept, as a report needs it again."""
    rng, even, rows = np.random.default_rng(0), np.full(count, 1 / count), max(1, _CHUNK // count)
    sizes = (min(rows, n - start) for start in range(0, n, rows))
    table = np.concatenate([rng.multinomial(count, even, size=size).astype(np.uint8) for size in sizes])
    table.setflags(write=False)
    return table


def _clustered(
    values: Sequence[float | None] | Float[np.ndarray, " S"], clusters: Sequence[Hashable]
) -> tuple[Float[np.ndarray, " S"], Int[np.ndarray, " S"], int]:
    """Known values, the number of each one's cluster by first appearance, and how many clusters there are."""
    if not len(values) or len(values) != len(clusters):
        raise DataError(f"one cluster for each of one or more values: got {len(values)} and {len(clusters)}")
    known = [(value, cluster) for value, cluster in zip(values, clusters, strict=True) if value is not None]
    x = np.array([value for value, _ in known], dtype=np.float64)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise DataError("a value is no finite number; mask its state instead")
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(cluster, len(numbers)) for _, cluster in known], dtype=np.int64)
    return x, index, len(numbers)
