"""What A1 predicts at the end of cloning, against the formulas written out, and where it is left as it is."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from pamdp.config import CloneConfig
from pamdp.data import load_sample, load_sample_pairs
from pamdp.models.actor import Planner
from pamdp.models.backbone import Readout
from pamdp.models.policy import Policy
from pamdp.models.posterior import Posterior
from pamdp.train.contrast import contrasts, directions
from pamdp.train.examples import Example, prepare
from pamdp.train.fit import fit_actor
from pamdp.train.refit import ridge
from pamdp.types import Dialogue
from tests.tools.tiny import make_tiny_backbone

D_A = 4


@cache
def _prepared() -> tuple[Planner, Posterior, list[Example]]:
    """Examples of three dialogues and two pairs on the tiny backbone; every test gets copies of them."""
    backbone = make_tiny_backbone()
    torch.manual_seed(0)
    planner = Planner(2 * backbone.d, backbone.d, D_A, 2, steers=True)
    posterior = Posterior(backbone.d, D_A)
    dialogues = [Dialogue(d.id, d.user_id, d.persona, d.turns[:2]) for d in load_sample("train").dialogues[:3]]
    pairs = load_sample_pairs("train").pairs[:2]
    policy = Policy(backbone, planner, None, Readout(layer=1))
    return planner, posterior, prepare(policy, posterior, CloneConfig(backbone="frozen"), dialogues, pairs)


@torch.no_grad()
def _copy(steers: bool) -> tuple[Planner, Posterior, list[Example]]:
    planner, posterior, examples = copy.deepcopy(_prepared())
    torch.nn.init.normal_(planner.injector.a2.weight, generator=torch.Generator().manual_seed(1))
    if not steers:
        planner.register_buffer("steering", None)
    return planner, posterior, examples


def _cloned(examples: list[Example]) -> list[tuple[Tensor, Example]]:
    return [(e.states, e) for e in examples if e.cloned and e.states is not None]


@torch.no_grad()
def test_a_planner_that_steers_learns_half_of_preferred_minus_rejected() -> None:
    planner, posterior, examples = _copy(steers=True)
    before, actor = copy.deepcopy(planner), planner.actor
    known = _cloned(examples)
    assert len(known) == 3 < len(examples)
    # Written out: directions over all examples, A1 over the dialogues, all of whose turns have two replies.
    space = directions([contrasts(e.meanings) for e in examples], D_A)
    x = torch.cat([actor.whiten(states) for states, _ in known])
    y = torch.cat([contrasts(e.meanings) @ torch.linalg.pinv(space) for _, e in known])
    expected = ridge(x, y, torch.tensor([0, 0, 1, 1, 2, 2]))
    mean = torch.cat([actor(states) for states, _ in known]).mean(0)
    prompt = before.injector.a2.bias + before.injector.a2.weight @ mean

    found = fit_actor(planner, posterior, examples, 3.0)
    assert found is not None and (found.r2, found.penalty) == (expected.r2, expected.penalty)
    assert torch.equal(actor.a1.weight, expected.weight.T) and torch.equal(actor.a1.bias, expected.bias)
    assert planner.steering is not None and torch.equal(planner.steering, 3 * space) and bool(space.any())
    assert torch.equal(planner.injector.a2.bias, prompt) and not planner.injector.a2.weight.any()


@torch.no_grad()
def test_a_planner_that_does_not_steer_learns_the_posterior_of_the_preferred_reply() -> None:
    planner, posterior, examples = _copy(steers=False)
    before, known = copy.deepcopy(planner), _cloned(examples)
    x = torch.cat([planner.actor.whiten(states) for states, _ in known])
    y = torch.stack([posterior(meaning)[0] for _, e in known for meaning in e.meanings])
    expected = ridge(x, y, torch.tensor([0, 0, 1, 1, 2, 2]))
    found = fit_actor(planner, posterior, examples, 3.0)
    assert found is not None and torch.equal(found.weight, expected.weight)
    assert torch.equal(planner.actor.a1.weight, expected.weight.T)
    assert torch.equal(planner.actor.a1.bias, expected.bias)
    for name, value in before.injector.state_dict().items():
        assert torch.equal(value, planner.injector.state_dict()[name]), name


@pytest.mark.parametrize("states", [True, False])
def test_where_nothing_says_what_an_action_should_be_a1_stays(states: bool) -> None:
    """No posterior, or H(h) that changed while cloning."""
    planner, posterior, examples = _copy(steers=False)
    before = copy.deepcopy(planner.state_dict())
    if not states:
        examples = [replace(e, states=None) for e in examples]
    assert fit_actor(planner, None if states else posterior, examples, 3.0) is None
    assert all(torch.equal(value, planner.state_dict()[name]) for name, value in before.items())


def test_a_dialogue_without_rejected_replies_is_no_example_of_a_contrast() -> None:
    planner, posterior, examples = _copy(steers=True)
    first = examples[0]
    alone = replace(
        first, replies=[group[:1] for group in first.replies], meanings=[meaning[:1] for meaning in first.meanings]
    )
    found = fit_actor(planner, posterior, [alone, *examples[1:]], 3.0)
    space = directions([contrasts(e.meanings) for e in [alone, *examples[1:]]], D_A)
    known = _cloned(examples)[1:]
    x = torch.cat([planner.actor.whiten(states) for states, _ in known])
    y = torch.cat([contrasts(e.meanings) @ torch.linalg.pinv(space) for _, e in known])
    assert found is not None and torch.equal(found.weight, ridge(x, y, torch.tensor([1, 1, 2, 2])).weight)


def test_without_any_rejected_reply_the_posterior_is_learned() -> None:
    planner, posterior, examples = _copy(steers=True)
    alone = [replace(e, replies=[g[:1] for g in e.replies], meanings=[m[:1] for m in e.meanings]) for e in examples]
    found = fit_actor(planner, posterior, alone, 3.0)
    bare, _, _ = _copy(steers=False)
    expected = fit_actor(bare, posterior, alone, 3.0)
    assert found is not None and expected is not None and torch.equal(found.weight, expected.weight)
