"""What the theory says, on random exact PAMDPs: identities, unbiasedness, and where the paper's claims fail."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from pamdp.lab.environments import REGIMES, Regime, random_pamdps
from pamdp.lab.exact import (
    METHODS,
    Enumeration,
    ExactEstimator,
    deltas,
    enumerate_turns,
    expected_gradient,
    second_moments,
)
from pamdp.lab.tabular import (
    Critics,
    Solution,
    TabularPamdp,
    TabularStep,
    objective,
    policy_gradient,
    solve,
)
from pamdp.rl.advantages import dual_critic_advantage

A2C, UAAC, DCRL, PAMDP_X, PAMDP_W, ODC, SAFE = METHODS
GENERATOR = torch.Generator().manual_seed(5)


def problem(
    regime: Regime, count: int = 10, seed: int = 1, horizon: int = 3
) -> tuple[TabularPamdp, list[torch.Tensor], Solution]:
    pamdp, logits, _ = random_pamdps(regime, count, seed=seed, horizon=horizon)
    return pamdp, logits, solve(pamdp, logits)


def noise(like: torch.Tensor) -> torch.Tensor:
    return torch.randn(like.shape, dtype=torch.float64, generator=GENERATOR)


def gradient_of(
    pamdp: TabularPamdp,
    solution: Solution,
    critics: Critics,
    method: ExactEstimator,
    pair: tuple[float, float] | None = None,
) -> torch.Tensor:
    turns = enumerate_turns(pamdp, solution, critics)
    coefficients = None if pair is None else [torch.tensor([pair] * len(pamdp.start)).double()] * len(turns)
    return flat(expected_gradient(turns, deltas(method, turns, coefficients), pamdp.gamma))


def flat(gradient: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([each.flatten(1) for each in gradient], dim=1)


def relative_error(gradient: torch.Tensor, exact: torch.Tensor) -> float:
    return float(((gradient - exact).norm(dim=1) / exact.norm(dim=1)).median())


def finite_differences(pamdp: TabularPamdp, logits: list[torch.Tensor]) -> torch.Tensor:
    columns = []
    for t, table in enumerate(logits):
        for i in range(table[0].numel()):
            step = torch.zeros_like(table)
            step.flatten(1)[:, i] = 1e-5
            ahead, behind = (objective(pamdp, [*logits[:t], table + s * step, *logits[t + 1 :]]) for s in (1, -1))
            columns.append((ahead - behind) / 2e-5)
    return torch.stack(columns, dim=1)


def mean_given(turn: Enumeration, delta: torch.Tensor, over: tuple[int, ...]) -> torch.Tensor:
    """E[delta | the axes that are left] of axes N H W U O W."""
    return (turn.probability * delta).sum(over) / turn.probability.sum(over)


# 1
@pytest.mark.parametrize("regime", REGIMES)
def test_theorem_1_holds_for_both_oracles(regime: Regime) -> None:
    pamdp, logits, s = problem(regime)
    for t in range(3):
        for oracle in (s.matched[t], s.full[t]):
            torch.testing.assert_close((s.belief[t] * oracle).sum(-1), s.v[t], rtol=0, atol=1e-12)
        torch.testing.assert_close(s.belief[t].sum(-1), torch.ones_like(s.v[t]), rtol=0, atol=1e-12)
    torch.testing.assert_close(s.v[0][:, 0], objective(pamdp, logits), rtol=0, atol=1e-12)


def test_the_oracles_agree_when_memoryless_and_differ_when_static() -> None:
    _, _, s = problem("memoryless")
    assert max(float((w - x).abs().max()) for w, x in zip(s.matched, s.full, strict=True)) < 1e-9
    _, _, s = problem("static")
    assert max(float((w - x).abs().max()) for w, x in zip(s.matched, s.full, strict=True)) > 0.1


def test_the_full_oracle_is_the_return_given_the_profile() -> None:
    """X of a static problem is V of the problem whose user is known to have that profile."""
    pamdp, logits, s = problem("static")
    for w in range(3):
        known = replace(pamdp, start=torch.eye(3, dtype=torch.float64)[w].expand_as(pamdp.start))
        torch.testing.assert_close(objective(known, logits), s.full[0][:, 0, w], rtol=0, atol=1e-12)


# 2 and 3
@pytest.mark.parametrize("regime", REGIMES)
def test_expected_gradients_equal_finite_differences(regime: Regime) -> None:
    pamdp, logits, s = problem(regime, count=4)
    numeric = finite_differences(pamdp, logits)
    assert float((flat(policy_gradient(pamdp, s)) - numeric).abs().max()) < 1e-6
    for method in METHODS:
        pair = (0.7, -0.4) if method in (ODC, SAFE) else None
        estimate = gradient_of(pamdp, s, s.critics(method.oracle), method, pair)
        assert float((estimate - numeric).abs().max()) < 1e-6, method.label


@pytest.mark.parametrize("regime", REGIMES)
def test_every_estimator_is_exact_with_exact_critics(regime: Regime) -> None:
    pamdp, _, s = problem(regime, count=20)
    exact = flat(policy_gradient(pamdp, s))
    for method in METHODS:
        pair = tuple(noise(torch.zeros(2)).tolist()) if method in (ODC, SAFE) else None
        estimate = gradient_of(pamdp, s, s.critics(method.oracle), method, pair)
        assert float((estimate - exact).abs().max()) < 1e-9, method.label


def test_the_advantage_is_right_for_each_utterance() -> None:
    """E[delta | h, u] = Q(h, u) − V(h), not only on average over u."""
    pamdp, _, s = problem("evolving")
    for method in (A2C, UAAC, DCRL, PAMDP_X, PAMDP_W):
        turns = enumerate_turns(pamdp, s, s.critics(method.oracle))
        for t, (turn, delta) in enumerate(zip(turns, deltas(method, turns), strict=True)):
            mean = mean_given(turn, delta, (2, 4, 5))
            torch.testing.assert_close(mean, s.q[t] - s.v[t].unsqueeze(-1), rtol=0, atol=1e-9)


# 4 and 5
def test_any_baseline_of_history_and_profile_leaves_equation_6_unbiased() -> None:
    pamdp, _, s = problem("static")
    wild = Critics(s.v, tuple(5 * noise(x) for x in s.full))
    assert float((gradient_of(pamdp, s, wild, PAMDP_X) - flat(policy_gradient(pamdp, s))).abs().max()) < 1e-9
    assert float((gradient_of(pamdp, s, wild, SAFE, (0.6, 9.0)) - flat(policy_gradient(pamdp, s))).abs().max()) < 1e-9


def test_errors_of_the_oracle_critic_bias_uaac_and_not_equation_6() -> None:
    pamdp, _, s = problem("static", count=30)
    noisy = Critics(s.v, (*(x + noise(x) for x in s.full[:-1]), s.full[-1]))
    exact = flat(policy_gradient(pamdp, s))
    assert relative_error(gradient_of(pamdp, s, noisy, PAMDP_X), exact) < 1e-9
    assert relative_error(gradient_of(pamdp, s, noisy, UAAC), exact) > 1e-2


def test_errors_of_the_history_critic_bias_equation_6() -> None:
    """The other half of the truth: V_φ(h′) is bootstrapped from, so its errors do bias."""
    pamdp, _, s = problem("static", count=30)
    noisy = Critics((*(v + noise(v) for v in s.v[:-1]), s.v[-1]), s.matched)
    assert relative_error(gradient_of(pamdp, s, noisy, PAMDP_W), flat(policy_gradient(pamdp, s))) > 1e-2


# 6, and what Eqs. 7 and 8 say
def test_uaac_and_pamdp_agree_given_the_next_history_and_a2c_does_not() -> None:
    pamdp, _, s = problem("static")
    turns = enumerate_turns(pamdp, s, s.critics("full"))
    means = {
        m.label: [mean_given(e, d, (2, 5)) for e, d in zip(turns, deltas(m, turns), strict=True)] for m in METHODS[:4]
    }
    for t in range(3):
        torch.testing.assert_close(means["UAAC"][t], means["PAMDP-X"][t], rtol=0, atol=1e-9)
        assert float((means["UAAC"][t] - means["A2C"][t]).abs().max()) > 1e-2


@pytest.mark.parametrize("regime", REGIMES)
def test_equation_8_is_wrong_the_asymmetric_term_has_mean_zero_given_the_next_history(regime: Regime) -> None:
    pamdp, _, s = problem(regime)
    for turn in enumerate_turns(pamdp, s, s.critics("full")):
        z2 = turn.inputs.discount * (turn.inputs.v_hw_next - turn.inputs.v_h_next)
        assert float(mean_given(turn, z2, (2, 5)).abs().max()) < 1e-9
    assert float(z2.abs().max()) == 0 or regime != "static"


# 7
def variances(regime: Regime, count: int, seed: int = 1) -> dict[str, list[torch.Tensor]]:
    pamdp, _, s = problem(regime, count=count, seed=seed)
    result = {}
    for method in (A2C, UAAC, DCRL, PAMDP_X, PAMDP_W):
        turns = enumerate_turns(pamdp, s, s.critics(method.oracle))
        squares = [d**2 for d in deltas(method, turns)]
        result[method.label] = [(e.probability * d).flatten(1).sum(1) for e, d in zip(turns, squares, strict=True)]
    result["Var(W|h)"] = [
        (p * (w - v.unsqueeze(-1)) ** 2).flatten(1).sum(1) for p, w, v in zip(s.occupancy, s.matched, s.v, strict=False)
    ]
    result["(W-X)^2"] = [
        (p * (w - x) ** 2).flatten(1).sum(1) for p, w, x in zip(s.occupancy, s.matched, s.full, strict=False)
    ]
    return result


@pytest.mark.parametrize("regime", REGIMES)
def test_variance_identities_and_the_matched_critic_is_never_worse_than_a2c(regime: Regime) -> None:
    v = variances(regime, count=50)
    for t in range(3):
        torch.testing.assert_close(v["A2C"][t], v["PAMDP-W"][t] + v["Var(W|h)"][t], rtol=0, atol=1e-9)
        torch.testing.assert_close(v["PAMDP-X"][t], v["PAMDP-W"][t] + v["(W-X)^2"][t], rtol=0, atol=1e-9)
        assert (v["PAMDP-W"][t] <= v["A2C"][t] + 1e-9).all()


# 8
def gradient_variances(regime: Regime, count: int) -> dict[str, torch.Tensor]:
    """Variance of one dialogue's gradient with respect to the logits, one value a problem."""
    pamdp, _, s = problem(regime, count=count)
    exact = flat(policy_gradient(pamdp, s)).square().sum(1)
    weights = pamdp.gamma ** (2 * torch.arange(3, dtype=torch.float64))
    result = {}
    for method in (A2C, UAAC, PAMDP_X, PAMDP_W):
        turns = enumerate_turns(pamdp, s, s.critics(method.oracle))
        result[method.label] = weights @ second_moments(turns, deltas(method, turns)) - exact
    return result


def test_memoryless_favours_the_matched_critic() -> None:
    v = {name: torch.stack(each).sum(0) for name, each in variances("memoryless", count=30).items()}
    assert (v["PAMDP-W"] <= torch.minimum(v["UAAC"], v["A2C"]) + 1e-9).all()


def test_static_with_offset_favours_uaac_and_a_bare_full_critic_is_worst() -> None:
    v = {name: float(each.log().mean().exp()) for name, each in gradient_variances("offset", count=30).items()}
    assert v["UAAC"] < v["PAMDP-W"] < v["A2C"] < v["PAMDP-X"]


# 9
def test_with_one_turn_uaac_and_pamdp_are_one() -> None:
    pamdp, _, s = problem("static", horizon=1)
    turns = enumerate_turns(pamdp, s, s.critics("full"))
    torch.testing.assert_close(deltas(UAAC, turns), deltas(PAMDP_X, turns), rtol=0, atol=0)


def test_when_the_history_tells_the_profile_all_methods_are_one() -> None:
    """Eq. 16 with a deterministic profiler makes the profile a function of the history."""
    pamdp, logits, _ = random_pamdps("static", 5, seed=1)
    told = torch.zeros(2, 2, 3, dtype=torch.float64)  # ω′ = (u + o) mod 3
    for u in range(2):
        for o in range(2):
            told[u, o, (u + o) % 3] = 1
    turns = tuple(TabularStep(t.reward, t.answer, told.expand_as(t.drift)) for t in pamdp.turns)
    known = TabularPamdp(torch.eye(3, dtype=torch.float64)[0].expand(5, 3), turns, pamdp.gamma)
    s = solve(known, logits)
    possible = [e.probability > 0 for e in enumerate_turns(known, s, s.critics("full"))]
    expected = deltas(A2C, enumerate_turns(known, s, s.critics("full")))
    for method in (UAAC, DCRL, PAMDP_X, PAMDP_W):
        found = deltas(method, enumerate_turns(known, s, s.critics(method.oracle)))
        for a, b, here in zip(found, expected, possible, strict=True):
            torch.testing.assert_close(a[here], b[here], rtol=0, atol=1e-9)


# 14
def test_the_weights_gamma_to_the_t_make_it_the_gradient_of_j() -> None:
    pamdp, logits, s = problem("static", count=20)
    leaves = [each.requires_grad_() for each in logits]
    exact = flat(torch.autograd.grad(objective(pamdp, leaves).sum(), leaves))
    assert relative_error(flat(policy_gradient(pamdp, s)), exact) < 1e-9
    as_printed = [each / pamdp.gamma**t for t, each in enumerate(policy_gradient(pamdp, s))]
    assert relative_error(flat(as_printed), exact) > 1e-3


def test_nothing_is_bootstrapped_past_the_last_turn() -> None:
    pamdp, _, s = problem("static")
    beyond = Critics((*s.v[:-1], s.v[-1] + 100), (*s.full[:-1], s.full[-1] - 100))
    for method in (A2C, UAAC, PAMDP_X):
        estimate = gradient_of(pamdp, s, beyond, method)
        assert float((estimate - flat(policy_gradient(pamdp, s))).abs().max()) < 1e-9
    turns = enumerate_turns(pamdp, s, s.critics("full"))
    assert [float(e.inputs.discount.max()) for e in turns] == [pamdp.gamma, pamdp.gamma, 0.0]


# 15
def relabelled(label: Callable[[torch.Tensor, torch.Size], torch.Tensor]) -> float:
    """Relative error of eq. 6's gradient when V_ξ(h, ω) is read at another label than ω_t."""
    pamdp, _, s = problem("evolving", count=30)
    turns = enumerate_turns(pamdp, s, s.critics("full"))
    found = []
    for t, turn in enumerate(turns):
        i = turn.inputs
        v_hw = label(s.full[t], turn.probability.shape)
        found.append(dual_critic_advantage(i.reward, i.discount, i.v_h_next, v_hw))
    return relative_error(flat(expected_gradient(turns, found, pamdp.gamma)), flat(policy_gradient(pamdp, s)))


def test_a_label_that_is_off_by_one_turn_or_looked_ahead_biases() -> None:
    def right(full: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return full[:, :, :, None, None, None].expand(shape)

    def next_profile(full: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return full[:, :, None, None, None, :].expand(shape)

    def from_answer(full: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return full[..., :2][:, :, None, None, :, None].expand(shape)

    assert relabelled(right) < 1e-9
    assert relabelled(next_profile) > 1e-2
    assert relabelled(from_answer) > 1e-2
