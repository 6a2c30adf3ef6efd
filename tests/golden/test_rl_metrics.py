"""Metrics by hand."""

import math

import pytest
import torch

from pamdp.errors import DataError
from pamdp.rl.metrics import explained_variance, success_rate, win_rate


def test_success_rate() -> None:
    assert success_rate(3, 1, 4) == 0.25
    assert success_rate(0, 5, 0) == -1.0


def test_ties_dilute_the_success_rate_but_not_the_win_rate() -> None:
    assert success_rate(1927, 1881, 0) > success_rate(1927, 1881, 100) > 0
    assert win_rate(3, 1) == 0.75


def test_explained_variance() -> None:
    target = torch.tensor([0.0, 2.0, 100.0], dtype=torch.float64)
    prediction = torch.tensor([0.0, 1.0, -7.0], dtype=torch.float64)
    mask = torch.tensor([True, True, False])
    assert explained_variance(prediction, target, mask) == 0.75
    assert explained_variance(target + 5, target) == 1.0
    assert explained_variance(torch.zeros(3), target) == 0.0
    assert math.isnan(explained_variance(target, torch.ones(3)))
    assert math.isnan(explained_variance(target[:1], target[:1]))


@pytest.mark.parametrize("counts", [(0, 0, 0), (-1, 2, 0)])
def test_rates_refuse_what_is_no_count(counts: tuple[int, int, int]) -> None:
    with pytest.raises(DataError):
        success_rate(*counts)
    with pytest.raises(DataError):
        win_rate(*counts[:2])
