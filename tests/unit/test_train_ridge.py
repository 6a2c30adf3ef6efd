"""A1 in closed form: the regression is the textbook's, and its penalty is chosen on users that were left out."""

import torch

from pamdp.train.ridge import PENALTIES, ridge


def test_by_hand() -> None:
    """One feature, x = 1, 3 and y = 1, 3: centred gram 2, cross 2; with penalty p the slope is 2 / (2 + 2p)."""
    x = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    y = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    found = ridge(x, y, torch.tensor([0, 0]))  # one group cannot be left out: the default penalty
    assert found.penalty == 1.0
    torch.testing.assert_close(found.weight, torch.tensor([[0.5]], dtype=torch.float64))
    torch.testing.assert_close(found.bias, torch.tensor([1.0], dtype=torch.float64))


def test_what_is_linear_is_found_and_noise_is_shrunk() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 20, generator=g, dtype=torch.float64)
    groups = torch.arange(200) // 5
    true = torch.randn(20, 3, generator=g, dtype=torch.float64)
    found = ridge(x, x @ true + 2.0, groups)
    assert found.penalty == min(PENALTIES)
    assert found.r2 > 0.98
    # An offset is no variance: whoever predicts it has explained nothing.
    noise = ridge(x, 5 + torch.randn(200, 3, generator=g, dtype=torch.float64), groups)
    assert noise.penalty == max(PENALTIES)
    assert noise.r2 < 0.02


def test_a_user_is_never_on_both_sides() -> None:
    """Features that name the user explain everything within users and nothing of a user that was left out."""
    g = torch.Generator().manual_seed(1)
    owner = torch.arange(40).repeat_interleave(5)
    x = torch.nn.functional.one_hot(owner).double()
    y = torch.randn(40, 2, generator=g, dtype=torch.float64)[owner]
    assert ridge(x, y, owner).r2 < 0.1
    assert ridge(x, y, torch.arange(200)).r2 > 0.5
