"""A round of reinforcement goes no further than replies stay as whole as the clone's."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from pamdp.config import RLConfig
from pamdp.learner import Learner
from pamdp.models.actor import Actor
from pamdp.models.critics import DualCritic
from pamdp.models.policy import Policy
from pamdp.train.trust_region import HALVINGS, TrustRegion
from tests.tools.reading import make_dialogues


@dataclass
class Breaking:
    """Stands in for a policy: of four replies as many are broken off as the actor's bias says."""

    actor: Actor
    asked: list[int] = field(default_factory=list)

    def with_actor(self, actor: Actor) -> Breaking:
        return Breaking(actor, self.asked)

    def replies(self, histories: list[object], sampling: object) -> list[str]:
        self.asked.append(len(histories))
        broken = self.actor.a1.bias[0].item() * len(histories)
        return ["All is" if i < broken else "All is well." for i in range(len(histories))]


def _region(form_states: int = 8, margin: float = 0.02) -> tuple[TrustRegion, Learner, dict[str, torch.Tensor]]:
    actor = Actor(4, 2)
    config = RLConfig(form_states=form_states, form_margin=margin, moves="all")
    learner = Learner(actor, DualCritic(4, 4, 1.0), config)
    policy: Policy = Breaking(actor)  # type: ignore[assignment]
    return TrustRegion(policy, make_dialogues(users=8), config, seed=0), learner, learner.delta.state_dict()


def _move(learner: Learner, bias: float) -> dict[str, torch.Tensor]:
    before = {name: value.clone() for name, value in learner.delta.state_dict().items()}
    with torch.no_grad():
        learner.delta.bias[0] += bias  # type: ignore[index]
    return before


def test_a_move_that_breaks_nothing_is_taken_whole() -> None:
    region, learner, _ = _region()
    before = _move(learner, -3.0)
    assert region.hold(learner, before) == {"garbled": 0.0, "blemished": 0.0, "kept": 1.0}
    assert learner.actor().a1.bias[0].item() == -3.0


def test_a_move_is_halved_until_replies_are_whole_enough() -> None:
    region, learner, _ = _region(margin=0.13)  # one of eight replies may break
    before = _move(learner, 0.5)
    assert region.hold(learner, before) == {"garbled": 0.0, "blemished": 0.125, "kept": 0.25}
    assert learner.actor().a1.bias[0].item() == pytest.approx(0.125)


def test_a_move_that_breaks_at_any_length_is_taken_back_to_the_last_round() -> None:
    region, learner, _ = _region(margin=0.0)
    _move(learner, -1.0)  # an earlier round, which was good
    before = _move(learner, 2.0**HALVINGS * 4)
    found = region.hold(learner, before)
    assert found["kept"] == 0.0 and learner.actor().a1.bias[0].item() == -1.0


def test_the_clone_need_not_be_whole_itself() -> None:
    actor = Actor(4, 2)
    with torch.no_grad():
        actor.a1.bias[0] = 0.5
    config = RLConfig(form_states=8, moves="all")
    learner = Learner(actor, DualCritic(4, 4, 1.0), config)
    region = TrustRegion(Breaking(actor), make_dialogues(users=8), config, seed=0)  # type: ignore[arg-type]
    assert region.cloned == {"garbled": 0.0, "blemished": 0.5}
    before = _move(learner, 0.0)
    assert region.hold(learner, before)["kept"] == 1.0


def test_nothing_is_measured_where_nothing_is_asked_for() -> None:
    region, learner, before = _region(form_states=0)
    assert region.hold(learner, before) == {} and region.policy.asked == []  # type: ignore[attr-defined]
