"""Moves of an actor: along principal components of the states, in their units, and back into A1 without loss."""

from __future__ import annotations

import copy

import torch

from pamdp.models.actor import Actor
from pamdp.models.moves import Moves


def _actor(width: int = 6, d_a: int = 3) -> Actor:
    torch.manual_seed(3)
    actor = Actor(width, d_a).double()
    actor.whiten.fit(torch.randn(50, width, dtype=torch.float64) * torch.arange(1, width + 1) + 2)
    return actor


def test_components_by_hand() -> None:
    """States (±4, 0) and (0, ±1) about (5, 5): the first component is the first axis, its variance 16 · 2/4 = 8."""
    actor = Actor(2, 1).double()
    states = torch.tensor([[9.0, 5.0], [1.0, 5.0], [5.0, 6.0], [5.0, 4.0]], dtype=torch.float64)
    moves = Moves(actor, 1).double()
    moves.fit(states)
    torch.testing.assert_close(moves.basis.abs(), torch.tensor([[8.0**-0.5, 0.0]], dtype=torch.float64))
    with torch.no_grad():
        moves.delta[0, 0] = torch.sign(moves.basis[0, 0]) * 8**0.5
        moves.delta[0, 1] = 10.0
        moved = moves(states) - actor(states)
    torch.testing.assert_close(moved[:, 0], torch.tensor([14.0, 6.0, 10.0, 10.0], dtype=torch.float64))


def test_each_direction_has_unit_variance_and_no_mean() -> None:
    actor, states = _actor(), torch.randn(40, 6, dtype=torch.float64) * torch.arange(1, 7) + 5
    moves = Moves(actor, 4).double()
    moves.fit(states)
    for k in range(4):
        with torch.no_grad():
            moves.delta.zero_()
            moves.delta[0, k] = 1.0
            z = (moves(states) - actor(states))[:, 0]
        assert abs(float(z.mean())) < 1e-10
        assert abs(float(z.square().mean()) - 1) < 1e-10


def test_written_back_the_actor_means_the_same() -> None:
    states = torch.randn(20, 6, dtype=torch.float64)
    for k in (0, 2):
        actor = _actor()
        moves = Moves(copy.deepcopy(actor), k).double()
        moves.fit(states)
        with torch.no_grad():
            moves.delta.normal_(generator=torch.Generator().manual_seed(1))
        moves.write(actor)
        torch.testing.assert_close(actor(states), moves(states))
        assert (actor(states) - moves.reference[0](states)).abs().max() > 0.1


def test_without_a_subspace_delta_is_the_change_of_a1() -> None:
    actor = _actor()
    moves = Moves(copy.deepcopy(actor), 0).double()
    with torch.no_grad():
        moves.delta[1, 2] = 0.5
        moves.delta[2, -1] = -0.25
    before = copy.deepcopy(actor)
    moves.write(actor)
    change = actor.a1.weight - before.a1.weight
    assert change.count_nonzero() == 1 and change[1, 2].item() == 0.5
    assert (actor.a1.bias - before.a1.bias).tolist() == [0.0, 0.0, -0.25]


def test_few_states_leave_directions_unused() -> None:
    actor = _actor()
    moves = Moves(actor, 5).double()
    moves.fit(torch.randn(3, 6, dtype=torch.float64))
    assert [bool(row.any()) for row in moves.basis] == [True, True, False, False, False]
    assert torch.isfinite(moves.basis).all()


def test_only_delta_learns() -> None:
    assert [name for name, _ in Moves(_actor(), 2).named_parameters()] == ["delta"]
