"""Intervals and tests: by hand where a hand can, by coverage where only a simulation can."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamdp.errors import DataError
from pamdp.evaluation.significance import (
    Estimate,
    _clustered,
    _multiplicities,
    cluster_bootstrap,
    holm,
    mean,
    sign_flip_p,
    student_t,
)

COVERAGE = 0.95


def plain(
    values: Sequence[float] | np.ndarray, clusters: Sequence[Hashable], *, n: int, level: float = 0.95
) -> tuple[float, float]:
    """The interval without its widening for few clusters."""
    x, index, count = _clustered(values, clusters)
    low, high = np.quantile(mean(x, _multiplicities(count, n)[:, index]), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def test_two_clusters_by_hand() -> None:
    # User a: 1, 1, 1; user b: −1. Resamples: aa gives 1 (1 in 4), bb gives −1 (1 in 4), ab gives (3 − 1) / 4 = 0.5.
    values, users = [1, 1, 1, -1], ["a", "a", "a", "b"]
    assert plain(values, users, n=4_000, level=0.4) == (0.5, 0.5)
    assert plain(values, users, n=4_000) == (-1, 1)
    assert cluster_bootstrap(values, users, n=4_000) == Estimate(0.5, -1, 1, 4, 2)


def test_interval_is_the_quantile_of_every_resample() -> None:
    # Three users with means 0, 1, 2 and one turn each: all 27 resamples, counted out.
    exact = np.array([np.mean(resample) for resample in product([0.0, 1.0, 2.0], repeat=3)])
    low, high = plain([0, 1, 2], "abc", n=40_000, level=0.6)
    assert low == pytest.approx(np.quantile(exact, 0.2), abs=1e-12)
    assert high == pytest.approx(np.quantile(exact, 0.8), abs=1e-12)


def test_all_turns_of_a_user_go_along() -> None:
    # Ten equal turns of each of two users are two observations, not twenty.
    values, users = [1.0] * 10 + [-1.0] * 10, ["a"] * 10 + ["b"] * 10
    assert plain(values, users, n=500)[1] == 1
    assert plain(values, range(20), n=500)[1] < 0.6


def test_equal_values_have_equal_intervals() -> None:
    values, users = np.random.default_rng(0).normal(size=40), np.repeat(np.arange(8), 5).tolist()
    found = cluster_bootstrap(values, users, n=999)
    _multiplicities.cache_clear()
    assert cluster_bootstrap(values, [f"user {user}" for user in users], n=999) == found
    assert cluster_bootstrap(values, users, n=998) != found


def test_chunks_do_not_change_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    values, users = np.random.default_rng(0).normal(size=40), np.repeat(np.arange(8), 5).tolist()
    whole, p_whole = cluster_bootstrap(values, users, n=999), sign_flip_p(values, users, n=99)
    monkeypatch.setattr("pamdp.evaluation.significance._CHUNK", 160)
    _multiplicities.cache_clear()
    assert cluster_bootstrap(values, users, n=999) == whole
    assert sign_flip_p(values, users, n=99) == p_whole


def test_any_statistic_that_takes_multiplicities() -> None:
    def largest(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.where(weights > 0, values, -np.inf).max(-1)

    found = cluster_bootstrap([1, 2, 3], "abc", largest, n=2_000)
    assert (found.value, found.low, found.high) == (3, 1, 3)


def test_what_is_masked_is_left_out_and_never_counted_as_0() -> None:
    values, users = [1.0, None, -1.0, None, 1.0, None], ["a", "a", "b", "c", "b", "d"]
    kept = ([1.0, -1.0, 1.0], ["a", "b", "b"])
    assert cluster_bootstrap(values, users, n=99) == cluster_bootstrap(*kept, n=99)
    assert sign_flip_p(values, users) == sign_flip_p(*kept)
    nothing = cluster_bootstrap([None, None], "ab")
    assert math.isnan(nothing.value) and nothing.n == 0 and math.isnan(sign_flip_p([None], "a"))


def test_one_cluster_has_a_value_and_no_interval() -> None:
    found = cluster_bootstrap([1, 0], ["a", "a"])
    assert found.value == 0.5 and math.isnan(found.low) and math.isnan(found.high) and found.sign == 0


@pytest.mark.parametrize(
    ("values", "users", "options"),
    [([], [], {}), ([1], ["a", "b"], {}), ([math.nan], ["a"], {}), ([[1]], ["a"], {}),
     ([1], ["a"], {"n": 0}), ([None, math.nan], "ab", {})],
)  # fmt: skip
def test_refusals(values: list[float], users: list[str], options: dict[str, int]) -> None:
    with pytest.raises(DataError):
        cluster_bootstrap(values, users, **options)


@pytest.mark.parametrize(("degrees", "quantile"), [(11, 2.200985), (5, 2.570582), (30, 2.042272), (1000, 1.962339)])
def test_student_t_from_tables(degrees: int, quantile: float) -> None:
    assert student_t(0.975, degrees) == pytest.approx(quantile, abs=1e-3)


@cache
def covered(users: int, clusters_known: bool, *, expanded: bool = True, runs: int = 300) -> float:
    """Share of simulated studies whose interval holds the truth: users differ, turns are wins, ties or losses."""
    rng, hits, turns = np.random.default_rng(11), 0, 5

    def study(size: int) -> np.ndarray:
        taste = 0.3 + 0.8 * rng.standard_normal((size, 1))
        won = np.where(rng.random((size, turns)) < 1 / (1 + np.exp(-2 * taste)), 1.0, -1.0)
        return np.where(rng.random((size, turns)) < 0.2, 0.0, won)

    truth = study(200_000).mean()
    who = np.repeat(np.arange(users), turns).tolist() if clusters_known else range(users * turns)
    for _ in range(runs):
        values = study(users).ravel()
        found = cluster_bootstrap(values, who, n=600)
        low, high = (found.low, found.high) if expanded else plain(values, who, n=600)
        hits += low <= truth <= high
    return hits / runs


def test_coverage_with_twelve_users() -> None:
    assert covered(12, True) == pytest.approx(COVERAGE, abs=0.025)


def test_coverage_with_forty_users() -> None:
    assert covered(40, True) == pytest.approx(COVERAGE, abs=0.025)


def test_without_clusters_or_without_widening_the_interval_is_too_short() -> None:
    assert covered(12, False) < 0.87
    assert covered(12, True, expanded=False) < covered(12, True)


def test_sign_flip_by_hand() -> None:
    # Sums 3, 1, 1: |±3 ±1 ±1| >= 5 happens for 2 of 8 flips.
    assert sign_flip_p([3, 1, 1], "abc") == 0.25
    # A user's turns flip together: sums 2, 2, so 2 of 4.
    assert sign_flip_p([1, 1, 1, 1], "aabb") == 0.5
    assert sign_flip_p([1, -1], "ab") == 1


def test_sign_flip_sampled_agrees_with_exact() -> None:
    values = np.random.default_rng(3).normal(0.4, 1, 13)
    exact = sign_flip_p(values, range(13), n=2**13)
    assert sign_flip_p(values, range(13), n=2**13 - 1) == pytest.approx(exact, abs=0.02)
    assert sign_flip_p([1.0] * 40, range(40), n=999) == pytest.approx(1 / 1000)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.integers(0, 5)), min_size=1, max_size=30))
def test_interval_of_a_rate_stays_in_range_and_mirrors(states: list[tuple[int, int]]) -> None:
    values, users = [v for v, _ in states], [u for _, u in states]
    found, mirrored = cluster_bootstrap(values, users, n=200), cluster_bootstrap([-v for v in values], users, n=200)
    assert mirrored.value == -found.value
    if found.clusters > 1:
        assert -1 <= found.low <= found.high <= 1
        assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert 0 < sign_flip_p(values, users) <= 1


def test_mean_weighs_turns() -> None:
    assert mean(np.array([1.0, 0.0]), np.array([[3.0, 1.0], [0.0, 2.0]])).tolist() == [0.75, 0]


def test_holm_by_hand() -> None:
    # 0.01 · 3; 0.03 · 2; 0.04 · 1, but no less than the one before.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
    one, none = holm([0.02, math.nan])
    assert one == 0.02 and math.isnan(none)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_only_raises_and_keeps_the_order(p_values: list[float]) -> None:
    found = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, found, strict=True))
    assert all(found[i] <= found[j] for i, p in enumerate(p_values) for j, q in enumerate(p_values) if p < q)
