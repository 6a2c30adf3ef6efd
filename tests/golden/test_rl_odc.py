"""The optimal dual critic by hand."""

import torch

from pamdp.rl.checks import AdvantageInputs
from pamdp.rl.odc import (
    OptimalDualCritic,
    bootstrap_moments,
    control_variates,
    gaussian_score_sq,
    leave_one_out_control,
    optimal_coefficients,
)


def tensor(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(result: torch.Tensor, expected: object) -> None:
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def one(reward: float, z1: float, z2: float, controls: tuple[float, ...] = ()) -> AdvantageInputs:
    """One transition with γ = .5, V_φ = 1 before and after: δ_A2C = reward − .5."""
    return AdvantageInputs(
        *(tensor(x) for x in (reward, 0.5, 1.0, 1.0, 1.0 + z1, 1.0 + z2 / 0.5)), tuple(tensor(c) for c in controls)
    )


def test_control_variates() -> None:
    delta, f = control_variates(one(3.0, 2.0, 0.25, (7.0,)))
    close(delta, [2.5])
    close(f, [[2.0, -0.25, 7.0]])


def test_optimal_coefficients() -> None:
    close(optimal_coefficients(tensor([2.0, 1.0], [1.0, 3.0]), tensor(4.0, 7.0)), [1.0, 2.0])


def test_optimal_coefficients_with_ridge_and_prior() -> None:
    second, cross = tensor([2.0, 0.0], [0.0, 4.0]), tensor(1.0, 2.0)
    close(optimal_coefficients(second, cross, 1.0), [0.25, 0.25])
    close(optimal_coefficients(second, cross, 1.0, tensor(1.0, 0.0)), [0.75, 0.25])


def test_optimal_coefficients_keep_the_prior_where_there_is_nothing_to_learn() -> None:
    close(optimal_coefficients(tensor([2.0, 0.0], [0.0, 0.0]), tensor(1.0, 0.0), 0.0, tensor(0.0, 0.3)), [0.5, 0.3])


def test_gaussian_score_sq() -> None:
    h, action, mean = tensor([1.0, 2.0]), tensor([1.0, 0.0]), tensor([0.0, 1.0])
    close(gaussian_score_sq(h, action, mean, 0.5), [(16.0 + 16.0) * 5.0])


def test_gaussian_score_sq_is_the_norm_of_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    h, a1 = torch.randn(3, 5, generator=generator), torch.randn(5, 2, generator=generator, requires_grad=True)
    action = torch.randn(3, 2, generator=generator)
    score_sq = gaussian_score_sq(h, action, h @ a1, 0.7)
    for i in range(3):
        log_prob = torch.distributions.Normal(h[i] @ a1, 0.7).log_prob(action[i]).sum()
        (gradient,) = torch.autograd.grad(log_prob, a1)
        torch.testing.assert_close(score_sq[i], gradient.square().sum())
    assert not score_sq.requires_grad


def test_leave_one_out_control() -> None:
    target, v_h = tensor([1.0, 2.0, 6.0], [0.0, 4.0, 8.0]), tensor([0.5, 0.5, 0.5], [1.0, 1.0, 1.0])
    close(leave_one_out_control(target, v_h), [[3.5, 3.0, 1.0], [5.0, 3.0, 1.0]])
    mask = torch.tensor([[True, True, False], [False, True, False]])
    target[~mask] = float("nan")
    close(leave_one_out_control(target, v_h, mask), [[1.5, 0.5, 1.0], [3.0, 0.0, 3.0]])


def test_running_estimate() -> None:
    odc = OptimalDualCritic(decay=0.5, ridge=0.0, prior=0.5)
    assert odc.coefficients() == (0.5, 0.5)
    odc.update(one(2.5, 1.0, 0.0), tensor(3.0))  # δ = 2, Z1 = 1, s² = 3: M = 3, b = 6
    close(torch.tensor(odc.coefficients(), dtype=torch.float64), [2.0, 0.5])
    odc.update(one(0.5, 2.0, 0.0), tensor(1.0))  # δ = 0, Z1 = 2, s² = 1: M = 1.5 + 4, b = 3
    close(torch.tensor(odc.coefficients(), dtype=torch.float64), [3 / 5.5, 0.5])


def test_running_estimate_of_both() -> None:
    odc = OptimalDualCritic(ridge=0.0)
    odc.update(one(1.0, 1.0, 0.0), tensor(1.0))  # δ = .5 = c1·1
    odc.update(one(3.0, 1.0, 4.0), tensor(2.0))  # δ = 2.5 = c1·1 − c2·4
    close(torch.tensor(odc.coefficients(), dtype=torch.float64), [0.5, -0.5])


def test_ridge_counts_in_transitions() -> None:
    odc = OptimalDualCritic(ridge=2.0, prior=0.5, decay=1.0)
    for _ in range(2):
        odc.update(one(2.5, 1.0, 0.0), tensor(1.0))
    # M = 2, b = 4, ρ = 2/2: c1 = .5 + (4 − 2·.5)/(2 + 2)
    close(torch.tensor(odc.coefficients(), dtype=torch.float64), [1.25, 0.5])


def test_safe_estimates_the_first_coefficient_alone() -> None:
    odc = OptimalDualCritic(ridge=0.0, safe=True)
    assert odc.coefficients() == (0.5, 0.0)
    odc.update(one(1.0, 1.0, 0.0), tensor(1.0))  # M11 = 1, b1 = .5
    odc.update(one(3.0, 1.0, 4.0), tensor(2.0))  # M11 = .9 + 2, b1 = .45 + 5
    close(torch.tensor(odc.coefficients(), dtype=torch.float64), [5.45 / 2.9, 0.0])


def test_further_control_is_estimated_with_the_others() -> None:
    odc = OptimalDualCritic(ridge=0.0, prior=0.0, controls=1)
    odc.update(one(1.0, 1.0, 0.0, (0.0,)), tensor(1.0))
    odc.update(one(3.0, 1.0, 0.0, (4.0,)), tensor(1.0))
    close(torch.tensor(odc.coefficients(), dtype=torch.float64), [0.5, 0.0, 0.5])


def test_masked_transitions_do_not_count() -> None:
    batch = AdvantageInputs(
        *(torch.cat([x, x]) for x in (tensor(2.5), tensor(0.5), tensor(1.0), tensor(1.0))),
        *(tensor(2.0, float("nan")), tensor(1.0, 1.0)),
    )
    masked, alone = OptimalDualCritic(), OptimalDualCritic()
    masked.update(batch, tensor(3.0, float("nan")), torch.tensor([True, False]))
    alone.update(one(2.5, 1.0, 0.0), tensor(3.0))
    assert masked.state_dict() == alone.state_dict()


def test_bootstrap_moments() -> None:
    # s²γ² = 2·.25 and 4·0: (.5·(3 + 5), .5·3)
    both, first = bootstrap_moments(tensor(0.5, 0.0), tensor(2.0, 4.0), tensor(3.0, 7.0), tensor(5.0, 9.0))
    close(torch.stack([both, first]), [4.0, 1.5])


def test_errors_of_the_critics_weigh_by_the_share_of_the_batch() -> None:
    odc = OptimalDualCritic(decay=0.5, ridge=0.0)
    odc.update(one(1.0, 1.0, 0.0), tensor(1.0), residuals=(tensor(16.0), tensor(48.0)))  # s²γ²ρ = 4, 12, halved below
    odc.update(one(3.0, 1.0, 4.0), tensor(2.0), residuals=(tensor(0.0), tensor(0.0)))
    # M = [[.5 + 2, −8], [−8, 32 + share·8]], b = [.25 + 5, −20 + share·2]
    close(torch.tensor(odc.coefficients(), dtype=torch.float64), [0.5, -0.5])
    m, b = tensor([2.5, -8.0], [-8.0, 32.0 + 4.0]), tensor(5.25, -20.0 + 1.0)
    close(torch.tensor(odc.coefficients(0.5), dtype=torch.float64), torch.linalg.solve(m, b).tolist())


def test_where_only_the_critics_err_they_are_weighed_by_their_errors() -> None:
    odc = OptimalDualCritic(ridge=0.0)
    odc.update(one(0.5, 0.0, 0.0), tensor(1.0), residuals=(tensor(3.0), tensor(1.0)))
    close(torch.tensor(odc.coefficients(1.0)[1], dtype=torch.float64), 0.75)  # (1 − c2)²·3 + c2²·1 is least at 3/4


def test_state_of_plain_numbers_comes_back() -> None:
    odc, other = OptimalDualCritic(), OptimalDualCritic()
    odc.update(one(3.0, 1.0, 4.0), tensor(2.0))
    state = odc.state_dict()
    assert all(type(value) is float for value in state.values())
    other.load_state_dict(state)
    assert other.coefficients() == odc.coefficients()
    odc.update(one(1.0, 1.0, 0.0), tensor(1.0))
    other.update(one(1.0, 1.0, 0.0), tensor(1.0))
    assert other.state_dict() == odc.state_dict()
