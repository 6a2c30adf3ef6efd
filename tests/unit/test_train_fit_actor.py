"""What A1 predicts after cloning, against the formulas written out, and where it is left as it is."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from pamdp.data import load_sample, load_sample_pairs
from pamdp.models.actor import Actor
from pamdp.models.backbone import Readout
from pamdp.models.features import FeatureStore
from pamdp.models.policy import Policy
from pamdp.train.examples import CloneExample, prepare
from pamdp.train.ridge import fit_actor, ridge
from pamdp.train.steering import contrasts, coordinates, directions
from pamdp.types import Dialogue
from tests.tools.tiny import make_tiny_backbone

D_A = 4


@cache
def _prepared() -> tuple[list[CloneExample], Tensor]:
    """Examples of six dialogues of two turns and two pairs on the tiny backbone, and the directions of all of them."""
    dialogues = [Dialogue(d.id, d.user_id, d.persona, d.turns[:2]) for d in load_sample("train").dialogues[:6]]
    policy = Policy(make_tiny_backbone(), None, None, Readout(layer=1))
    examples = prepare(policy, dialogues, load_sample_pairs("train").pairs[:2], 32, FeatureStore(None))
    return examples, directions(torch.cat([contrasts(e.meanings) for e in examples]), D_A)


def _actor(examples: list[CloneExample]) -> Actor:
    states = torch.cat([e.states for e in examples if e.cloned and e.states is not None])
    torch.manual_seed(0)
    actor = Actor(states.shape[1], D_A)
    actor.whiten.fit(states)
    return actor


def test_a1_is_the_regression_written_out() -> None:
    """Of the dialogues alone, with all turns of a dialogue in one group, in units of hidden states."""
    examples, space = _prepared()
    cloned = [e for e in examples if e.cloned and e.states is not None]
    assert len(cloned) == 6 < len(examples)
    actor = _actor(examples)
    x = actor.whiten(torch.cat([e.states for e in cloned if e.states is not None]))
    size = space.norm(dim=1)
    y = torch.cat([coordinates(contrasts(e.meanings), space) for e in cloned]) * size
    owner = torch.arange(6).repeat_interleave(2)
    expected = ridge(x, y, owner)
    with torch.no_grad():
        found = fit_actor(actor, examples, space)
        assert found is not None and (found.r2, found.penalty) == (expected.r2, expected.penalty)
        weight = expected.weight / size
        unit = ((x - x.mean(0)) @ weight).square().mean().sqrt()
        torch.testing.assert_close(actor.a1.weight, (weight / unit).T)
        torch.testing.assert_close(actor.a1.bias, expected.bias / size)


def test_actions_have_the_rms_asked_for_around_their_mean() -> None:
    examples, space = _prepared()
    actor = _actor(examples)
    states = torch.cat([e.states for e in examples if e.cloned and e.states is not None])
    for gain in (1.0, 3.0):
        fit_actor(actor, examples, space, gain)
        with torch.no_grad():
            action = actor(states)
        assert abs(float((action - action.mean(0)).square().mean()) - gain**2) < 1e-3


def test_a_turn_without_a_rejected_reply_is_no_example() -> None:
    examples, space = _prepared()
    first = examples[0]
    alone = replace(first, replies=[g[:1] for g in first.replies], meanings=[m[:1] for m in first.meanings])
    with_it, without = _actor(examples), _actor(examples)
    fit_actor(with_it, [alone, *examples[1:]], space)
    fit_actor(without, examples[1:], space)
    assert torch.equal(with_it.a1.weight, without.a1.weight)


def test_where_nothing_says_what_an_action_should_be_a1_stays() -> None:
    """H(h) changed while cloning, or no turn has two replies."""
    examples, space = _prepared()
    alone = [replace(e, replies=[g[:1] for g in e.replies], meanings=[m[:1] for m in e.meanings]) for e in examples]
    for unknown in ([replace(e, states=None) for e in examples], alone):
        actor = _actor(examples)
        before = copy.deepcopy(actor.state_dict())
        assert fit_actor(actor, unknown, space) is None
        assert all(torch.equal(value, before[name]) for name, value in actor.state_dict().items())
