"""What holds for all inputs: special cases of one another, bounds, and what an estimate may depend on."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pamdp.rl.advantages import compute_advantage, dual_critic_advantage, lambda_advantage
from pamdp.rl.checks import AdvantageInputs
from pamdp.rl.losses import actor_loss, cloning_loss, critic_loss, gaussian_kl, gaussian_log_prob, surrogate_loss
from pamdp.rl.odc import OptimalDualCritic, leave_one_out_control
from pamdp.rl.returns import lambda_returns, max_value, td_target

seeds = st.integers(0, 2**31)
fractions = st.floats(0, 1)


def draw(seed: int, count: int, *shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, dtype=torch.float64, generator=generator) for _ in range(count)]


def batch_of(seed: int, *shape: int) -> AdvantageInputs:
    reward, discount, *values = draw(seed, 6, *shape)
    return AdvantageInputs(reward, discount.sigmoid(), *values)


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@given(seeds, fractions)
def test_odc_holds_the_others_as_special_cases(seed: int, beta: float) -> None:
    batch = batch_of(seed, 3, 2)
    same(compute_advantage("odc", batch, coefficients=(0, 0)), compute_advantage("a2c", batch))
    same(compute_advantage("odc", batch, coefficients=(1, 1)), compute_advantage("uaac", batch))
    same(compute_advantage("odc", batch, coefficients=(1, 0)), compute_advantage("pamdp", batch))
    same(compute_advantage("odc", batch, coefficients=(beta, beta)), compute_advantage("dcrl", batch, beta=beta))
    same(compute_advantage("odc_safe", batch, coefficients=(1, 0.7)), compute_advantage("pamdp", batch))


def discounted_return(reward: torch.Tensor, gamma: float) -> torch.Tensor:
    """Σ_k γ^k · r_{t+k} for each t, as eq. 4 has it."""
    horizon = reward.shape[-1]
    sums = [sum(gamma**k * reward[..., t + k] for k in range(horizon - t)) for t in range(horizon)]
    return torch.stack(sums, dim=-1)


@given(seeds, st.integers(1, 5), fractions)
def test_lambda_returns_end_in_the_td_target_and_the_discounted_return(seed: int, horizon: int, gamma: float) -> None:
    reward, v_next = draw(seed, 2, 2, horizon)
    discount = torch.full_like(reward, gamma)
    same(lambda_returns(reward, discount, v_next, 0.0), td_target(reward, discount, v_next))
    bootstrapped = reward.clone()
    bootstrapped[..., -1] += gamma * v_next[..., -1]
    same(lambda_returns(reward, discount, v_next, 1.0), discounted_return(bootstrapped, gamma))


@given(seeds)
def test_lambda_advantage_at_zero_is_equation_6(seed: int) -> None:
    b = batch_of(seed, 2, 3)
    same(
        lambda_advantage(b.reward, b.discount, b.v_h_next, b.v_hw, 0.0),
        dual_critic_advantage(b.reward, b.discount, b.v_h_next, b.v_hw),
    )


@given(seeds, fractions)
def test_lambda_advantage_is_not_the_sum_of_equation_6s_deltas(seed: int, lam: float) -> None:
    """The λ-return needs A2C's deltas; with eq. 6's, V_φ(h′) − V_ξ(h′, ω′) is left over at every turn."""
    b = batch_of(seed, 4)
    v_h = torch.cat([b.v_h[:1], b.v_h_next[:-1]])
    symmetric = compute_advantage("a2c", AdvantageInputs(b.reward, b.discount, v_h, b.v_h_next, v_h, b.v_h_next))
    total = torch.zeros(())
    for t in reversed(range(4)):
        total = symmetric[t] + lam * b.discount[t] * total
    same(lambda_returns(b.reward, b.discount, b.v_h_next, lam)[0], total + v_h[0])


@given(st.floats(0.1, 5), fractions, st.integers(1, 10), seeds)
def test_max_value_covers_every_return(r_max: float, gamma: float, horizon: int, seed: int) -> None:
    bound = max_value(r_max, gamma, horizon)
    reward = draw(seed, 1, horizon)[0].clamp(-1, 1) * r_max
    assert discounted_return(reward, gamma).abs().max() <= bound
    assert discounted_return(torch.full((horizon,), r_max, dtype=torch.float64), gamma)[0] <= bound / 1.25 + 1e-9


@given(seeds, st.floats(0.1, 3))
def test_kl_is_not_negative_and_zero_only_at_home(seed: int, sigma: float) -> None:
    mean, reference = draw(seed, 2, 3, 4)
    assert (gaussian_kl(mean, reference, sigma) > 0).all()
    assert (gaussian_kl(mean, mean, sigma) == 0).all()


@given(seeds, st.floats(0.2, 2))
def test_kl_is_the_mean_log_ratio(seed: int, sigma: float) -> None:
    """E_q[log q − log q_b] over antithetic samples is exact, because the log ratio is linear in the noise."""
    mean, reference, noise = draw(seed, 3, 4)
    both = [mean + sign * sigma * noise for sign in (1, -1)]
    ratios = [gaussian_log_prob(a, mean, sigma) - gaussian_log_prob(a, reference, sigma) for a in both]
    same((ratios[0] + ratios[1]) / 2, gaussian_kl(mean, reference, sigma))


@given(seeds, st.lists(st.booleans(), min_size=5, max_size=5).filter(any))
def test_a_masked_transition_is_as_if_it_were_not_there(seed: int, kept: list[bool]) -> None:
    mask = torch.tensor(kept)
    a, b, c, d = draw(seed, 4, 5)
    same(actor_loss(a, b, c, 0.1, mask), actor_loss(a[mask], b[mask], c[mask], 0.1))
    same(surrogate_loss(a, b, c, 0.2, mask), surrogate_loss(a[mask], b[mask], c[mask], 0.2))
    same(critic_loss(a, b, c, d, mask=mask), critic_loss(a[mask], b[mask], c[mask], d[mask]))
    tokens, full = draw(seed, 1, 5, 3)[0], torch.ones(5, 3, dtype=torch.bool)
    same(cloning_loss(tokens, full, mask), cloning_loss(tokens[mask], full[mask]))


@given(seeds)
def test_the_surrogate_starts_with_the_gradient_of_equation_12(seed: int) -> None:
    log_prob, delta = draw(seed, 2, 5)
    log_prob.requires_grad_()
    (first,) = torch.autograd.grad(surrogate_loss(log_prob, log_prob.detach(), delta, 0.2), log_prob)
    (second,) = torch.autograd.grad(actor_loss(log_prob, delta, torch.zeros(5).double(), 0.0), log_prob)
    same(first, second)


@given(seeds, st.integers(0, 3))
def test_leave_one_out_does_not_see_its_own_sample(seed: int, own: int) -> None:
    target, v_h = draw(seed, 2, 4)
    before = leave_one_out_control(target, v_h)
    target[own] += 100
    after = leave_one_out_control(target, v_h)
    changed = (after - before).abs() > 1
    assert changed.sum() == 3
    assert not changed[own]


@given(seeds, st.booleans())
@settings(max_examples=50)
def test_no_fixed_method_beats_the_coefficients_on_the_batches_they_come_from(seed: int, safe: bool) -> None:
    batch, score_sq = batch_of(seed, 20), draw(seed + 1, 1, 20)[0].square()
    odc = OptimalDualCritic(ridge=0.0, safe=safe)
    odc.update(batch, score_sq)

    def moment(c1: float, c2: float) -> float:
        return float((score_sq * compute_advantage("odc", batch, coefficients=(c1, c2)) ** 2).sum())

    best = moment(*odc.coefficients())
    rivals = [(0, 0), (1, 0), (0.3, 0)] if safe else [(0, 0), (1, 1), (0.5, 0.5), (1, 0)]
    assert all(best <= moment(*rival) + 1e-9 for rival in rivals)


@given(seeds, st.floats(0.01, 100))
@settings(max_examples=50)
def test_the_scale_of_the_score_does_not_matter(seed: int, scale: float) -> None:
    batch, score_sq = batch_of(seed, 10), draw(seed + 1, 1, 10)[0].square()
    one, other = OptimalDualCritic(), OptimalDualCritic()
    one.update(batch, score_sq)
    other.update(batch, scale * score_sq)
    same(torch.tensor(one.coefficients()), torch.tensor(other.coefficients()))


@given(seeds)
@settings(max_examples=50)
def test_reading_the_coefficients_does_not_change_them_and_updating_leaves_the_batch_alone(seed: int) -> None:
    batch, score_sq = batch_of(seed, 10), draw(seed + 1, 1, 10)[0].square()
    odc = OptimalDualCritic()
    before = batch.reward.clone()
    odc.update(batch, score_sq)
    assert odc.coefficients() == odc.coefficients()
    assert torch.equal(batch.reward, before)
