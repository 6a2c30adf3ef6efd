"""Directions of contrast: what two replies share drops out, and contrasts have unit variance in every coordinate."""

import torch

from pamdp.train.steering import contrasts, coordinates, directions, sensitive

AXES = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)


def test_contrasts_by_hand() -> None:
    """Only a turn with both replies has one; what both share (the 7) is not in it."""
    both = torch.tensor([[3.0, 7.0], [1.0, 7.0]])
    alone = torch.tensor([[5.0, 5.0]])
    assert contrasts([both, alone]).tolist() == [[1.0, 0.0]]
    assert len(contrasts([alone])) == 0


def test_directions_by_hand() -> None:
    """Contrasts (±3, 0) and (0, ±1): the first axis leads; the RMS of 3, -3, 0, 0 is √4.5, of 0, 0, 1, -1 √.5."""
    expected = torch.tensor([[4.5**0.5, 0.0], [0.0, 0.5**0.5]], dtype=torch.float64)
    torch.testing.assert_close(directions(AXES, 1).abs(), expected[:1])
    torch.testing.assert_close(directions(AXES, 2).abs(), expected)


def test_coordinates_give_contrasts_back() -> None:
    space = directions(AXES, 2)
    action = coordinates(AXES, space)
    torch.testing.assert_close(action @ space, AXES)
    torch.testing.assert_close(action.square().mean(0), torch.ones(2, dtype=torch.float64))


def test_more_directions_than_contrasts_are_zero() -> None:
    out = directions(torch.tensor([[2.0, 0.0, 0.0]]), 3)
    assert out.shape == (3, 3) and out[0].abs().max() > 0 and not out[1:].any()
    assert not coordinates(torch.tensor([[1.0, 1.0, 1.0]]), out)[0, 1:].any()


def test_sensitive_directions_are_orthogonal_and_noise_along_them_is_worth_one_nat() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(500, 6, dtype=torch.float64, generator=generator) * torch.tensor([4.0, 3, 2, 1, 0.5, 0.1])
    space = sensitive(scores + 7.0, 3)  # what all scores share is no direction
    assert space.shape == (3, 6)
    gram = space @ space.T
    torch.testing.assert_close(gram, gram[0, 0] * torch.eye(3, dtype=torch.float64))
    assert space[:, :3].norm() > 0.99 * space.norm()
    centred = scores - scores.mean(0)
    # a ~ N(0, I) shifts by a·space, and log p(u|h) by score·shift: its mean square over replies and actions.
    assert abs(float((centred @ space.T).square().sum(1).mean()) - 1.0) < 1e-9


def test_there_are_no_more_sensitive_directions_than_scores_span() -> None:
    space = sensitive(torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]), 2)
    assert space[1].abs().max() == 0
    assert abs(abs(float(space[0, 0])) - 1.0) < 1e-6
