"""Changes of an actor: along what they name, in its units, and back into A1 without loss."""

from __future__ import annotations

import copy

import pytest
import torch

from pamdp.models.actor import Actor
from pamdp.models.actor_delta import ComponentDelta, FullDelta, GainDelta, make_actor_delta

KINDS = ("gains", "components", "all")


def _actor(width: int = 6, d_a: int = 3) -> Actor:
    torch.manual_seed(3)
    actor = Actor(width, d_a).double()
    actor.whiten.fit(torch.randn(50, width, dtype=torch.float64) * torch.arange(1, width + 1) + 2)
    torch.nn.init.normal_(actor.a1.bias)
    return actor


def test_components_by_hand() -> None:
    """States (±4, 0) and (0, ±1) about (5, 5): the first component is the first axis, its variance 16 · 2/4 = 8."""
    actor = Actor(2, 1).double()
    states = torch.tensor([[9.0, 5.0], [1.0, 5.0], [5.0, 6.0], [5.0, 4.0]], dtype=torch.float64)
    delta = ComponentDelta(actor, 1).double()
    delta.fit(states)
    torch.testing.assert_close(delta.basis.abs(), torch.tensor([[8.0**-0.5, 0.0]], dtype=torch.float64))
    with torch.no_grad():
        delta.along[0, 0] = torch.sign(delta.basis[0, 0]) * 8**0.5
        delta.constant[0] = 10.0
        moved = delta(states) - actor(states)
    torch.testing.assert_close(moved[:, 0], torch.tensor([14.0, 6.0, 10.0, 10.0], dtype=torch.float64))


def test_each_component_has_unit_variance_and_no_mean() -> None:
    actor, states = _actor(), torch.randn(40, 6, dtype=torch.float64) * torch.arange(1, 7) + 5
    delta = ComponentDelta(actor, 4).double()
    delta.fit(states)
    for k in range(4):
        with torch.no_grad():
            delta.along.zero_()
            delta.along[0, k] = 1.0
            z = (delta(states) - actor(states))[:, 0]
        assert abs(float(z.mean())) < 1e-10
        assert abs(float(z.square().mean()) - 1) < 1e-10


def test_gains_by_hand() -> None:
    """Actions 2 and 6 around their mean of 4, gains .5 for all and .25 here, constant 1:2 - 1.5 + 1 and 6 + 1.5 + 1."""
    actor = Actor(1, 1).double()
    with torch.no_grad():
        actor.a1.weight.fill_(2.0)
        actor.a1.bias.fill_(3.0)
    states = torch.tensor([[-0.5], [1.5]], dtype=torch.float64)
    delta = GainDelta(actor).double()
    delta.fit(states)
    with torch.no_grad():
        delta.common.fill_(0.5)
        delta.each.fill_(0.25)
        delta.constant.fill_(1.0)
        torch.testing.assert_close(delta(states), torch.tensor([[1.5], [8.5]], dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_written_back_the_actor_means_the_same(kind: str) -> None:
    states = torch.randn(20, 6, dtype=torch.float64)
    actor = _actor()
    delta = make_actor_delta(kind, copy.deepcopy(actor), 2).double()
    delta.fit(states)
    assert torch.equal(delta(states), actor(states))  # it starts where it was cloned
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    actor = delta.applied()
    torch.testing.assert_close(actor(states), delta(states))
    assert (actor(states) - delta.reference(states)).abs().max() > 0.1


def test_everywhere_is_the_change_of_a1() -> None:
    actor = _actor()
    delta = FullDelta(copy.deepcopy(actor)).double()
    with torch.no_grad():
        delta.weight[1, 2] = 0.5
        delta.bias[2] = -0.25
    before = actor
    actor = delta.applied()
    change = (actor.a1.weight - before.a1.weight).detach()
    assert change.count_nonzero() == 1 and change[1, 2].item() == 0.5
    assert (actor.a1.bias - before.a1.bias).tolist() == pytest.approx([0.0, 0.0, -0.25])


def test_few_states_leave_components_unused() -> None:
    delta = ComponentDelta(_actor(), 5).double()
    delta.fit(torch.randn(3, 6, dtype=torch.float64))
    assert [bool(row.any()) for row in delta.basis] == [True, True, False, False, False]
    assert torch.isfinite(delta.basis).all()


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_moves_learns(kind: str) -> None:
    actor = _actor()
    delta = make_actor_delta(kind, actor, 2).double()
    torch.autograd.backward(delta(torch.randn(4, 6, dtype=torch.float64)).sum())
    assert all(p.grad is None for p in actor.parameters())
    assert all(p.grad is not None for p in delta.parameters())
