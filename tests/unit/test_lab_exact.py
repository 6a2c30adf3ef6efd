"""The optimal dual critic with exact critics, and the exact moments of whole dialogues."""

from itertools import product

import pytest
import torch

from pamdp.lab.benchmark import exact_estimates, turn_moments
from pamdp.lab.environments import REGIMES, Regime, random_pamdps
from pamdp.lab.exact import (
    METHODS,
    deltas,
    enumerate_turns,
    expected_gradient,
    optimal,
    second_moments,
    trajectory_moments,
)
from pamdp.lab.sampling import log_probs, sample, scores_sq
from pamdp.lab.tabular import objective, policy_gradient, replicate, solve
from pamdp.rl.advantages import compute_advantage
from pamdp.rl.checks import AdvantageInputs
from pamdp.rl.odc import OptimalDualCritic

A2C, UAAC, DCRL, PAMDP_X, PAMDP_W, ODC, SAFE = METHODS


# 10: issue 3's term
@pytest.mark.parametrize("regime", REGIMES)
def test_odc_is_no_worse_than_any_other_in_any_turn_of_200_problems(regime: Regime) -> None:
    moments = turn_moments(exact_estimates(*random_pamdps(regime, 200, seed=0)))
    for rival in ("A2C", "UAAC", "DCRL .5", "DCRL best", "PAMDP-X"):
        assert moments["ODC by turn"].shape == (3, 200)
        assert float((moments["ODC by turn"] - moments[rival]).max()) <= 1e-9, rival


def test_the_best_mixture_is_the_best_of_a_fine_grid() -> None:
    pamdp, logits, features = random_pamdps("static", 20, seed=0)
    s = solve(pamdp, logits)
    turns = enumerate_turns(pamdp, s, s.critics("full"), features)
    grid = torch.stack(
        [
            second_moments(turns, [compute_advantage("dcrl", turn.inputs, beta=beta) for turn in turns])
            for beta in torch.linspace(0, 1, 101).tolist()
        ]
    ).amin(0)
    best = turn_moments(exact_estimates(pamdp, logits, features))["DCRL best"]
    assert (best <= grid + 1e-9).all()
    torch.testing.assert_close(best, grid, rtol=1e-3, atol=1e-3)


def test_one_pair_for_all_turns_is_no_worse_in_the_sum_of_the_turns() -> None:
    pamdp, logits, features = random_pamdps("offset", 50, seed=0)
    s = solve(pamdp, logits)
    turns = enumerate_turns(pamdp, s, s.critics("full"), features)
    pooled, safe = ([optimal(turns, [1.0] * 3, safe=safe)] * 3 for safe in (False, True))
    total = second_moments(turns, deltas(ODC, turns, pooled)).sum(0)
    for method in (A2C, UAAC, DCRL, PAMDP_X):
        assert (total <= second_moments(turns, deltas(method, turns)).sum(0) + 1e-9).all(), method.label
    safe_total = second_moments(turns, deltas(SAFE, turns, safe)).sum(0)
    assert (total <= safe_total + 1e-9).all()
    assert (safe_total <= second_moments(turns, deltas(PAMDP_X, turns)).sum(0) + 1e-9).all()


def test_the_running_estimate_finds_the_exact_coefficients() -> None:
    """OptimalDualCritic, fed every transition with weight P·s², has the coefficients of the exact moments."""
    pamdp, logits, features = random_pamdps("static", 1, seed=3)
    s = solve(pamdp, logits)
    turns = enumerate_turns(pamdp, s, s.critics("full"), features)
    odc = OptimalDualCritic(decay=1.0, ridge=0.0)
    for turn in turns:
        odc.update(turn.inputs, turn.probability * turn.score_sq)
    exact = optimal(turns, [1.0] * 3)[0]
    torch.testing.assert_close(torch.tensor(odc.coefficients(), dtype=torch.float64), exact, rtol=0, atol=1e-9)


def test_moments_of_whole_dialogues_agree_with_all_dialogues_one_by_one() -> None:
    pamdp, logits, features = random_pamdps("evolving", 1, seed=4, horizon=2)
    s = solve(pamdp, logits)
    turns = enumerate_turns(pamdp, s, s.critics("matched"), features)
    delta = deltas(PAMDP_W, turns)
    mean, variance = trajectory_moments(pamdp, turns, delta, features)
    first, second, square = torch.zeros(4, 2).double(), torch.zeros(4, 2).double(), 0.0
    for w0, u0, o0, w1 in product(range(3), range(2), range(2), range(3)):
        p0 = turns[0].probability[0, 0, w0, u0, o0, w1]
        g0 = delta[0][0, 0, w0, u0, o0, w1] * torch.outer(features[0][0, 0], turns[0].direction[0, 0, u0])
        first += p0 * g0
        h = 2 * u0 + o0
        for u1, o1, w2 in product(range(2), range(2), range(3)):
            p = p0 * turns[1].chance[0, h, w1, u1, o1, w2]
            g1 = delta[1][0, h, w1, u1, o1, w2] * torch.outer(features[1][0, h], turns[1].direction[0, h, u1])
            second += p * pamdp.gamma * g1
            square += float(p * (g0 + pamdp.gamma * g1).square().sum())
    torch.testing.assert_close(mean[0], (first + second).flatten(), rtol=0, atol=1e-12)
    assert float(variance[0]) == pytest.approx(square - float((first + second).square().sum()), abs=1e-12)


def test_mean_of_whole_dialogues_is_the_gradient_for_shared_parameters() -> None:
    pamdp, _, features = random_pamdps("evolving", 5, seed=4)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 4, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    (exact,) = torch.autograd.grad(objective(pamdp, [phi @ weights for phi in features]).sum(), weights)
    s = solve(pamdp, [(phi @ weights).detach() for phi in features])
    for method in (A2C, UAAC, PAMDP_W):
        turns = enumerate_turns(pamdp, s, s.critics(method.oracle), features)
        mean, variance = trajectory_moments(pamdp, turns, deltas(method, turns), features)
        torch.testing.assert_close(mean, exact.flatten(1), rtol=0, atol=1e-9)
        assert (variance > 0).all()


def test_turns_of_a_policy_without_shared_parameters_do_not_overlap() -> None:
    """One logit for each history: the variance of a dialogue's gradient is the sum over its turns."""
    pamdp, logits, _ = random_pamdps("static", 5, seed=0, horizon=2)
    s = solve(pamdp, logits)
    eye = torch.eye(5, dtype=torch.float64)
    one_hot = [eye[:1].expand(5, 1, 5), eye[1:].expand(5, 4, 5)]
    turns = enumerate_turns(pamdp, s, s.critics("full"))
    delta = deltas(UAAC, turns)
    mean, variance = trajectory_moments(pamdp, turns, delta, one_hot)
    by_turn = second_moments(turns, delta) * torch.tensor([1.0, pamdp.gamma**2], dtype=torch.float64)[:, None]
    torch.testing.assert_close(variance, by_turn.sum(0) - mean.square().sum(-1), rtol=0, atol=1e-9)
    exact = torch.cat([each.flatten(1) for each in policy_gradient(pamdp, s)], 1)
    torch.testing.assert_close(mean, exact, rtol=0, atol=1e-9)


def test_sampled_scores_and_probabilities_are_those_of_the_policy() -> None:
    pamdp, logits, _ = random_pamdps("static", 2, seed=0)
    policy = [each.softmax(-1) for each in logits]
    dialogues = sample(pamdp, policy, 6, torch.Generator().manual_seed(0))
    leaves = [each.clone().requires_grad_() for each in logits]
    chosen, squares = log_probs(leaves, dialogues), scores_sq(policy, dialogues)
    for run, episode, t in ((0, 0, 0), (1, 3, 1), (0, 5, 2)):
        h, u = dialogues.history[run, episode, t], dialogues.utterance[run, episode, t]
        torch.testing.assert_close(chosen[run, episode, t].exp(), policy[t][run, h, u])
        (gradient,) = torch.autograd.grad(chosen[run, episode, t], leaves[t], retain_graph=True)
        torch.testing.assert_close(squares[run, episode, t], gradient.square().sum())


def test_samples_follow_the_dynamics() -> None:
    pamdp, logits, _ = random_pamdps("evolving", 1, seed=2)
    s = solve(pamdp, logits)
    dialogues = sample(
        replicate(pamdp, 2), [p.expand(2, -1, -1) for p in s.policy], 20_000, torch.Generator().manual_seed(0)
    )
    for run in range(2):
        seen = torch.zeros(16, 3, dtype=torch.float64)
        pairs = torch.ones(20_000, dtype=torch.float64)
        seen.index_put_((dialogues.history[run, :, 2], dialogues.profile[run, :, 2]), pairs, accumulate=True)
        assert float((seen / 20_000 - s.occupancy[2][0]).abs().max()) < 5 * (0.25 / 20_000) ** 0.5
    returns = (dialogues.reward * 0.95 ** torch.arange(3)).sum(-1)
    assert float((returns.mean(1) - s.v[0][0, 0]).abs().max()) < 5 * float(returns.std()) / 20_000**0.5


def test_expected_gradient_is_discounted() -> None:
    pamdp, logits, _ = random_pamdps("static", 3, seed=0)
    s = solve(pamdp, logits)
    turns = enumerate_turns(pamdp, s, s.critics("matched"))
    weighted, plain = (expected_gradient(turns, deltas(A2C, turns), gamma) for gamma in (pamdp.gamma, 1.0))
    for t in range(3):
        torch.testing.assert_close(weighted[t], pamdp.gamma**t * plain[t])


def test_leave_one_out_keeps_the_gradient_exact() -> None:
    """Two samples of one state: Z = r + γ·V(h′) of the other − V(h), whatever its coefficient."""
    pamdp, logits, _ = random_pamdps("static", 3, seed=1)
    s = solve(pamdp, logits)
    for t, turn in enumerate(enumerate_turns(pamdp, s, s.critics("full"))):
        i = turn.inputs
        n, h, w, u, o, z = turn.probability.shape
        target = (i.reward + i.discount * i.v_h_next).reshape(n, h, -1)
        chance = (turn.probability / turn.probability.sum((2, 3, 4, 5), keepdim=True)).reshape(n, h, -1)
        own = torch.arange(u)[:, None, None].expand(w, u, o, z).reshape(-1)
        control = target.unsqueeze(2) - s.v[t][:, :, None, None]  # of the other, by own × other
        joint = chance.unsqueeze(-1) * chance.unsqueeze(-2)
        fields = (i.reward, i.discount, i.v_h, i.v_h_next, i.v_hw, i.v_hw_next)
        pairs = [x.reshape(n, h, -1, 1).expand_as(joint) for x in fields]
        batch = AdvantageInputs(*pairs, controls=(control.expand_as(joint),))
        delta = compute_advantage("odc", batch, coefficients=(0.3, 0.8, 0.9))
        mean = torch.einsum("nhab,nhab,nhav->nhv", joint, delta, turn.direction[:, :, own])
        exact = s.policy[t] * (s.q[t] - s.v[t].unsqueeze(-1))
        torch.testing.assert_close(mean, exact, rtol=0, atol=1e-9)
