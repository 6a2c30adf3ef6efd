"""Losses by hand, their gradients, and masked transitions that hold NaN."""

import math

import pytest
import torch

from pamdp.rl.losses import (
    actor_loss,
    cloning_loss,
    critic_loss,
    gaussian_kl,
    gaussian_log_prob,
    reply_log_ratio,
    surrogate_loss,
)

NAN = float("nan")


def tensor(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def close(result: torch.Tensor, expected: object) -> None:
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_gaussian_log_prob() -> None:
    action, mean = tensor([1.0, 2.0], [0.0, 1.0]), tensor([0.0, 0.0], [0.0, 3.0])
    constant = 2 * math.log(2 * math.sqrt(2 * math.pi))
    close(gaussian_log_prob(action, mean, 2.0), [-5 / 8 - constant, -4 / 8 - constant])
    reference = torch.distributions.Normal(mean, 2.0).log_prob(action).sum(-1)
    torch.testing.assert_close(gaussian_log_prob(action, mean, 2.0), reference)


def test_gaussian_kl() -> None:
    mean, reference = tensor([1.0, 2.0], [0.0, 1.0]), tensor([0.0, 0.0], [0.0, 4.0])
    kl = gaussian_kl(mean, reference, 2.0)
    close(kl, [5 / 8, 9 / 8])
    normal = torch.distributions.Normal
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(normal(mean, 2.0), normal(reference, 2.0)).sum(-1))
    kl.sum().backward()
    close(mean.grad, [[0.25, 0.5], [0.0, -0.75]])
    assert reference.grad is None


def test_actor_loss() -> None:
    log_prob, delta, kl = tensor(-1.0, -3.0), tensor(2.0, 1.0), tensor(0.5, 1.5)
    loss = actor_loss(log_prob, delta, kl, 0.1)
    close(loss, 2.5 + 0.1)
    loss.backward()
    close(log_prob.grad, [-1.0, -0.5])
    close(kl.grad, [0.05, 0.05])
    assert delta.grad is None


def test_actor_loss_masked() -> None:
    log_prob = tensor(-1.0, -3.0, -5.0)
    loss = actor_loss(log_prob, tensor(2.0, NAN, 1.0), tensor(0.5, NAN, 1.5), 0.1, torch.tensor([True, False, True]))
    close(loss, 3.5 + 0.1)
    loss.backward()
    close(log_prob.grad, [-1.0, 0.0, -0.5])


def test_surrogate_loss() -> None:
    old = tensor(-1.0, -1.0, -1.0, -1.0)
    log_prob = (old.detach() + torch.tensor([1.5, 0.5, 1.5, 0.5], dtype=torch.float64).log()).requires_grad_()
    delta = tensor(1.0, 1.0, -1.0, -1.0)
    # clipped from above, not from below; not from above, clipped from below
    loss = surrogate_loss(log_prob, old, delta, 0.2)
    close(loss, -(1.2 + 0.5 - 1.5 - 0.8) / 4)
    loss.backward()
    close(log_prob.grad, [0.0, -0.125, 0.375, 0.0])
    assert old.grad is None
    assert delta.grad is None
    mask = torch.tensor([True, False, True, False])
    close(surrogate_loss(log_prob, old, tensor(1.0, NAN, -1.0, NAN), 0.2, mask), -(1.2 - 1.5) / 2)


def critics() -> tuple[torch.Tensor, ...]:
    return tensor(1.0, 2.0), tensor(0.0, 4.0), tensor(0.0, 1.0), tensor(3.0, 1.0)


def test_critic_loss_mse() -> None:
    v_h, target_h, v_hw, target_hw = critics()
    loss = critic_loss(v_h, target_h, v_hw, target_hw, alpha1=2.0, alpha2=0.5)
    close(loss, 2 * 2.5 + 0.5 * 4.5)
    loss.backward()
    close(v_h.grad, [2.0, -4.0])
    close(v_hw.grad, [-1.5, 0.0])
    assert target_h.grad is None
    assert target_hw.grad is None
    close(critic_loss(*critics()), 7.0)


def test_critic_loss_l1() -> None:
    close(critic_loss(*critics(), alpha1=2.0, alpha2=0.5, kind="l1"), 2 * 1.5 + 0.5 * 1.5)


def test_critic_loss_masked() -> None:
    v_h, _, v_hw, _ = critics()
    loss = critic_loss(v_h, tensor(0.0, NAN), v_hw, tensor(3.0, NAN), mask=torch.tensor([True, False]))
    close(loss, 1.0 + 9.0)
    loss.backward()
    close(v_h.grad, [2.0, 0.0])
    close(v_hw.grad, [-6.0, 0.0])


def test_l1_fits_the_median_and_mse_the_mean() -> None:
    """Rewards -1, .5, 1 with probabilities .45, .2, .35: the mean is 0, the median .5."""
    reward = torch.tensor([-1.0] * 9 + [0.5] * 4 + [1.0] * 7, dtype=torch.float64)
    for kind, expected in (("mse", 0.0), ("l1", 0.5)):
        value = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        for step in range(2000):
            v = value.expand(20)
            (gradient,) = torch.autograd.grad(critic_loss(v, reward, v, reward, kind=kind), value)
            value = (value - 0.5 / (1 + step / 10) * gradient).detach().requires_grad_()
        assert abs(float(value.detach()) - expected) < 1e-2, kind


def test_cloning_loss() -> None:
    token_log_prob = tensor([-1.0, -2.0, NAN], [-6.0, NAN, -7.0])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    loss = cloning_loss(token_log_prob, mask)
    close(loss, 3.0)
    loss.backward()
    close(token_log_prob.grad, [[-1 / 3, -1 / 3, 0.0], [-1 / 3, 0.0, 0.0]])
    close(cloning_loss(token_log_prob, mask, torch.tensor([True, False])), 1.5)


def test_nothing_left_is_zero_and_has_a_gradient() -> None:
    nothing = torch.tensor([False, False])
    log_prob = tensor(-1.0, -2.0)
    loss = actor_loss(log_prob, tensor(NAN, NAN), tensor(NAN, NAN), 0.1, nothing)
    close(loss, 0.0)
    loss.backward()
    close(log_prob.grad, [0.0, 0.0])


def test_reply_log_ratio() -> None:
    score, drawn = torch.tensor([[2.0, -1.0]], dtype=torch.float64), torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    mean = torch.tensor([[1.5, 3.0]], dtype=torch.float64, requires_grad=True)
    ratio = reply_log_ratio(score, mean, drawn)
    # 2·(1.5 − 1) − 1·(3 − 1)
    assert ratio.tolist() == [-1.0]
    (gradient,) = torch.autograd.grad(ratio.sum(), mean)
    assert gradient.tolist() == score.tolist()


def test_both_gradients_have_one_expectation_and_that_through_replies_varies_less() -> None:
    """One action number, two replies, p(u = 1|a) = 1/(1 + e^-a), r(u) = u: by quadrature over a, exactly over u."""
    mu, sigma = 0.3, 0.5
    a = torch.linspace(mu - 8 * sigma, mu + 8 * sigma, 4001, dtype=torch.float64)
    step, mean = a[1] - a[0], torch.full_like(a, mu)[:, None].requires_grad_()
    log_density = gaussian_log_prob(a[:, None], mean, sigma)
    density, p = log_density.detach().exp() * step, a.sigmoid()
    # Only u = 1 is rewarded. Its score by the action's density, and by its own likelihood: d log p(1|a)/da = 1 − p.
    (by_action,) = torch.autograd.grad(log_density.sum(), mean)
    ratio = reply_log_ratio((1 - p)[:, None], mean, torch.full_like(mean, mu))
    (by_reply,) = torch.autograd.grad(ratio.sum(), mean)
    wanted = float((density * p * (1 - p)).sum())  # d/dμ of E[p(a)]
    for score in (by_action, by_reply):
        assert float((density * p * score[:, 0]).sum()) == pytest.approx(wanted, rel=1e-9)
    spread = [float((density * p * score[:, 0].square()).sum()) - wanted**2 for score in (by_action, by_reply)]
    assert spread[1] < spread[0] / 5
