"""Metrics by hand."""

import math

import torch

from pamdp.rl.metrics import explained_variance


def test_explained_variance() -> None:
    target = torch.tensor([0.0, 2.0, 100.0], dtype=torch.float64)
    prediction = torch.tensor([0.0, 1.0, -7.0], dtype=torch.float64)
    mask = torch.tensor([True, True, False])
    assert explained_variance(prediction, target, mask) == 0.75
    assert explained_variance(target + 5, target) == 1.0
    assert explained_variance(torch.zeros(3), target) == 0.0
    assert math.isnan(explained_variance(target, torch.ones(3)))
    assert math.isnan(explained_variance(target[:1], target[:1]))
