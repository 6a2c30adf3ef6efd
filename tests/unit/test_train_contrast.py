"""Directions of contrast: what two replies share drops out, and a unit action shifts as far as replies differ."""

import torch

from pamdp.train.contrast import contrasts, directions


def test_contrasts_by_hand() -> None:
    """Only a turn with both replies has one; what both share (the 7) is not in it."""
    both = torch.tensor([[3.0, 7.0], [1.0, 7.0]])
    alone = torch.tensor([[5.0, 5.0]])
    assert contrasts([both, alone]).tolist() == [[1.0, 0.0]]
    assert contrasts([alone]).tolist() == [[0.0, 0.0]]


def test_directions_by_hand() -> None:
    """Contrasts (±3, 0) and (0, ±1): the first axis leads; with one direction its RMS is that of 3, -3, 0, 0."""
    found = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    one = directions([found], 1)
    torch.testing.assert_close(one.abs(), torch.tensor([[4.5**0.5, 0.0]], dtype=torch.float64))
    two = directions([found[:2], found[2:]], 2)
    assert abs(float(two[0] @ two[1])) < 1e-12
    torch.testing.assert_close(two.square().sum(1), torch.tensor([2.5, 2.5], dtype=torch.float64))


def test_more_directions_than_contrasts_are_zero() -> None:
    out = directions([torch.tensor([[2.0, 0.0, 0.0]])], 3)
    assert out.shape == (3, 3) and out[0].abs().max() > 0 and not out[1:].any()
