"""Whitening, actor, injector and critics: by hand."""

import math

import pytest
import torch

from pamdp.errors import ShapeError
from pamdp.models.actor import Actor, Injector, Planner, Whitening
from pamdp.models.backbone import Backbone
from pamdp.models.critics import Critic, DualCritic
from pamdp.models.policy import Policy


def test_whitening_by_hand() -> None:
    whiten = Whitening(2)
    whiten.fit(torch.tensor([[0.0, 10.0], [2.0, 30.0]]))
    # Means 1 and 20; sample deviations √2 and 10·√2.
    assert whiten(torch.tensor([3.0, 0.0])).tolist() == pytest.approx([math.sqrt(2), -math.sqrt(2)])


def test_whitening_leaves_constant_features_finite_and_small() -> None:
    whiten = Whitening(3)
    whiten.fit(torch.tensor([[5.0, 0.0, 1.0], [5.0, 2.0, 3.0]]))
    out = whiten(torch.tensor([5.0, 0.0, 1.0]))
    assert out[0] == 0 and out.isfinite().all()


def test_whitened_states_have_mean_0_and_deviation_1() -> None:
    features = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 9.0) + 3
    whiten = Whitening(8)
    whiten.fit(features)
    torch.testing.assert_close(whiten(features).mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(whiten(features).std(0), torch.ones(8))


@pytest.mark.parametrize("shape", [(4, 3), (1, 2), (2,), (2, 2, 2)])
def test_whitening_refuses_what_it_cannot_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="width 2"):
        Whitening(2).fit(torch.zeros(shape))


def test_actor_mean_by_hand() -> None:
    actor = Actor(2, d_a=1)
    with torch.no_grad():
        actor.whiten.mean.copy_(torch.tensor([1.0, 0.0]))
        actor.whiten.scale.copy_(torch.tensor([2.0, 1.0]))
        actor.a1.weight.copy_(torch.tensor([[3.0, -1.0]]))
        actor.a1.bias.fill_(0.5)
    # 3·(5 − 1)/2 − 1·4 + 0.5
    assert actor(torch.tensor([[5.0, 4.0]])).tolist() == [[2.5]]


def test_samples_have_the_density_of_eq_10(tiny_backbone: Backbone) -> None:
    policy = Policy(tiny_backbone, Planner(4, tiny_backbone.d, d_a=2))
    policy.trained_planner.actor.sigma.fill_(0.3)
    mean, drawn = policy.act(torch.ones(4), 20_000, seed=0)
    actions = torch.stack(drawn)
    assert torch.equal(mean, policy.trained_planner.actor(torch.ones(4)))
    torch.testing.assert_close(actions.mean(0), mean, atol=0.01, rtol=0)
    torch.testing.assert_close(actions.std(0), torch.full((2,), 0.3), atol=0.01, rtol=0)


def test_samples_come_from_their_seed_alone(tiny_backbone: Backbone) -> None:
    policy = Policy(tiny_backbone, Planner(4, tiny_backbone.d, d_a=2))
    first, other = (torch.stack(policy.act(torch.ones(4), 3, seed=seed)[1]) for seed in (7, 8))
    torch.manual_seed(123)
    assert torch.equal(first, torch.stack(policy.act(torch.ones(4), 3, seed=7)[1]))
    assert not torch.equal(first, other)


def test_injector_makes_n_embeddings_in_order() -> None:
    injector = Injector(d=3, d_a=1, n=2)
    with torch.no_grad():
        injector.a2.weight.copy_(torch.arange(6.0)[:, None])
        injector.a2.bias.fill_(1.0)
    assert injector(torch.tensor([2.0])).tolist() == [[1.0, 3.0, 5.0], [7.0, 9.0, 11.0]]
    assert injector(torch.zeros(4, 5, 1)).shape == (4, 5, 2, 3)


def test_a_planner_is_small_and_has_no_state_but_its_own() -> None:
    planner = Planner(width=32, d=32, d_a=8)
    names = set(planner.state_dict())
    assert {n for n, _ in planner.named_parameters()} == {
        "actor.a1.weight", "actor.a1.bias", "injector.a2.weight", "injector.a2.bias",
    }  # fmt: skip
    assert names - {n for n, _ in planner.named_parameters()} == {
        "actor.sigma", "actor.whiten.mean", "actor.whiten.scale",
    }  # fmt: skip


def test_the_shift_of_an_action_by_hand() -> None:
    """Each number of an action goes along its own direction, forwards."""
    planner = Planner(width=4, d=3, d_a=2, steers=True)
    assert planner.steering is not None
    planner.steering.copy_(torch.tensor([[1.0, 0.0, 2.0], [0.0, 10.0, 0.0]]))
    shift = planner.steer(torch.tensor([[3.0, 0.5], [0.0, -1.0]]))
    assert shift is not None and shift.tolist() == [[3.0, 5.0, 6.0], [0.0, -10.0, 0.0]]
    assert Planner(width=4, d=3, d_a=2).steer(torch.ones(2)) is None


def test_critic_by_hand_and_never_beyond_v_max() -> None:
    critic = Critic(2, v_max=5.0)
    assert critic(torch.ones(3, 2)).tolist() == [0.0, 0.0, 0.0]
    with torch.no_grad():
        critic.head.weight.copy_(torch.tensor([[1.0, -2.0]]))
        critic.head.bias.fill_(0.25)
    # 5·tanh(1·1 − 2·0.5 + 0.25)
    assert critic(torch.tensor([1.0, 0.5])).item() == pytest.approx(5 * math.tanh(0.25))
    assert critic(torch.tensor([[1e6, 0.0], [-1e6, 0.0]])).tolist() == [5.0, -5.0]


def test_a_value_has_the_shape_of_its_states() -> None:
    dual = DualCritic(width_h=4, width_hw=6, v_max=1.0)
    assert dual.v_h(torch.zeros(7, 3, 4)).shape == (7, 3)
    assert dual.v_hw(torch.zeros(7, 3, 6)).shape == (7, 3)
    assert dual.v_h(torch.zeros(4)).shape == ()


def test_the_two_critics_share_nothing() -> None:
    dual = DualCritic(width_h=4, width_hw=4, v_max=1.0)
    (dual.v_h(torch.ones(2, 4)).sum()).backward()
    assert all(p.grad is None for p in dual.v_hw.parameters())
    assert all(p.grad is not None for p in dual.v_h.parameters())
