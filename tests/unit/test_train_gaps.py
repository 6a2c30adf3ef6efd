"""Cloning where the data leave things out: no rejected replies, and dialogues without a preferred one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pamdp.config import CloneConfig, Config
from pamdp.errors import DataError
from pamdp.fingerprint import Fingerprint
from pamdp.models.policy import Policy
from pamdp.runs import Run
from pamdp.train.clone import clone
from pamdp.train.examples import with_synthetic_rejected
from pamdp.train.factory import new_policy
from pamdp.types import Dialogue, Turn
from tests.tools.methods import CLONE, MODEL, RL, few
from tests.tools.tiny import make_tiny_backbone

CONFIG = Config(model=MODEL, clone=CLONE, rl=RL)
SILENT = Dialogue("silent", "silent", few("train", 1)[0].persona, (Turn("Hello?"),))


def _bare(dialogues: Sequence[Dialogue]) -> tuple[Dialogue, ...]:
    """As PrefEval: preferred replies, which were said, and nothing beside them."""
    return tuple(
        replace(d, turns=tuple(replace(t, rejected=None, chosen="preferred") for t in d.turns)) for d in dialogues
    )


def _cloned(folder: Path, train: Sequence[Dialogue], clone_config: CloneConfig = CLONE) -> tuple[Policy, Run]:
    config = CONFIG.model_copy(update={"clone": clone_config})
    with Run.create(folder, config, Fingerprint(data="d", model="tiny", revision="0")) as run:
        torch.manual_seed(0)
        return clone(new_policy(make_tiny_backbone(), config), train, train[:1], config, run), run


def test_a_dialogue_without_a_preferred_reply_changes_nothing(tmp_path: Path) -> None:
    train = few("train", 3)
    plain, _ = _cloned(tmp_path / "a", train)
    beside, _ = _cloned(tmp_path / "b", [*train, SILENT])
    assert plain.planner is not None and beside.planner is not None
    assert torch.equal(plain.planner.actor.a1.weight, beside.planner.actor.a1.weight)


def test_nothing_to_clone_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training turn has a preferred reply"):
        _cloned(tmp_path / "a", [SILENT])


def test_without_contrasts_the_action_works_as_it_was_cloned(tmp_path: Path) -> None:
    """Nothing steers, so the embeddings must go on to depend on the action."""
    policy, run = _cloned(tmp_path / "a", _bare(few("train", 3)))
    assert policy.planner is not None and policy.planner.steering is not None
    assert not policy.planner.steering.any() and policy.planner.injector.a2.weight.any()
    assert [row["steered"] for row in run.metrics() if "steered" in row] == [0.0]


def test_some_dialogues_may_lack_contrasts(tmp_path: Path) -> None:
    first, *others = few("train", 3)
    policy, run = _cloned(tmp_path / "a", [*_bare([first]), *others])
    assert policy.planner is not None and policy.planner.steering is not None and policy.planner.steering.any()
    assert [row["steered"] for row in run.metrics() if "steered" in row] == [1.0]


def test_the_backbone_s_own_replies_stand_in_for_rejected_ones(tmp_path: Path) -> None:
    first, *others = few("train", 3)
    data = [*_bare(others), first, SILENT]
    policy = Policy(make_tiny_backbone())
    whole = with_synthetic_rejected(policy, data, 6)
    assert whole[2:] == (first, SILENT)  # what the data reject stays, and nothing is invented for what lacks both
    for before, after in zip(data, whole, strict=True):
        assert all(before.history(t) == after.history(t) for t in range(len(before.turns)))
    for turn in (turn for dialogue in whole[:2] for turn in dialogue.turns):
        assert turn.rejected and turn.rejected != turn.preferred
    own = CLONE.model_copy(update={"rejected": "backbone"})
    policy, _ = _cloned(tmp_path / "a", _bare(few("train", 3)), own)
    assert policy.planner is not None and policy.planner.steering is not None and policy.planner.steering.any()
