"""Returns and targets by hand."""

import math

import torch

from pamdp.rl.returns import explained_variance, lambda_returns, literal_target, max_value, td_target


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def check(result: torch.Tensor, *expected: float) -> None:
    assert not result.requires_grad, "a target is a constant to the critic loss"
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_lambda_returns() -> None:
    r, g, v = vector(1, -1, 2), vector(0.5, 0.9, 0.9), vector(2, 4, 6)
    # G_2 = 2 + .9·6 = 7.4;  G_1 = -1 + .9·(.75·4 + .25·7.4) = 3.365;  G_0 = 1 + .5·(.75·2 + .25·3.365) = 2.170625
    check(lambda_returns(vector(1, 2, 3), vector(0.5, 0.5, 0.5), vector(0, 0, 0), 1.0), 2.75, 3.5, 3)
    check(lambda_returns(r, g, v, 0.25), 2.170625, 3.365, 7.4)
    check(lambda_returns(r, g, v, 0.0), 2, 2.6, 7.4)
    check(lambda_returns(r, g, v, 1.0), 1 + 0.5 * (-1 + 0.9 * 7.4), -1 + 0.9 * 7.4, 7.4)


def test_a_finished_dialogue_cuts_the_return_and_the_horizon_does_not() -> None:
    check(lambda_returns(vector(1, 1), vector(0.9, 0), vector(5, 5), 1.0), 1.9, 1)
    check(lambda_returns(vector(1, 1), vector(0.9, 0.9), vector(5, 5), 1.0), 1 + 0.9 * 5.5, 5.5)


def test_padding_after_the_last_turn_does_not_flow_back() -> None:
    last = torch.tensor([True, False])
    check(lambda_returns(vector(1, 100), vector(0.9, 0.9), vector(5, 100), 1.0, last=last)[:1], 5.5)


def test_td_target() -> None:
    check(td_target(vector(1, -1), vector(0.9, 0), vector(2, 7)), 2.8, -1)


def test_literal_target() -> None:
    check(literal_target(vector(1, -1), vector(0.5, 0.25), vector(2, 7)), 2.5, 5.75)


def test_fixed_points_of_both_targets() -> None:
    """T = 4, r = 1: Eq. 14 to the letter has half the scale and forgets; TD has the return."""
    literal = td = torch.zeros(5, dtype=torch.float64)
    r, gamma = torch.ones(4, dtype=torch.float64), torch.tensor([0.99, 0.99, 0.99, 0.0], dtype=torch.float64)
    for _ in range(200):
        literal = torch.cat([0.5 * literal[:4] + 0.5 * literal_target(r, literal[:4], literal[1:]), literal[4:]])
        td = torch.cat([td_target(r, gamma, td[1:]), td[4:]])
    check(literal[:4], 0.9375, 0.875, 0.75, 0.5)
    assert abs(float(td[0]) - 3.940399) < 1e-9


def test_max_value() -> None:
    assert abs(max_value(1.0, 0.99, 6) - 7.314981324875) < 1e-9
    assert max_value(2.0, 1.0, 3) == 7.5
    assert max_value(1.0, 0.0, 3, margin=1.0) == 1.0


def test_explained_variance() -> None:
    target = torch.tensor([0.0, 2.0, 100.0], dtype=torch.float64)
    prediction = torch.tensor([0.0, 1.0, -7.0], dtype=torch.float64)
    mask = torch.tensor([True, True, False])
    assert explained_variance(prediction, target, mask) == 0.75
    assert explained_variance(target + 5, target) == 1.0
    assert explained_variance(torch.zeros(3), target) == 0.0
    assert math.isnan(explained_variance(target, torch.ones(3)))
    assert math.isnan(explained_variance(target[:1], target[:1]))
