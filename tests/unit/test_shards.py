"""Dialogues in parts, and what came of them as one: no transition is lost or moved, whoever played what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from pamdp.config import CloneConfig, Config
from pamdp.evaluation.offline_eval import evaluate, write_replies
from pamdp.launch import Launcher, Local
from pamdp.llm.limits import Limiter
from pamdp.models.policy import Policy
from pamdp.runs import Run
from pamdp.shards import blocks, deal
from pamdp.train.offline import offline
from pamdp.train.online import played
from pamdp.train.site import Author, Round, Site
from pamdp.transitions import Rollout, to_batch
from tests.tools.launching import make_site
from tests.tools.learning import PRINT, learn, make_dialogues, make_learning, make_policy, make_world
from tests.tools.methods import MODEL, RL, VowelJudge, few


def _play(config: Config, workers: int, seed: int = 5) -> Rollout:
    site = make_site(config, Limiter())
    policy = Author.of(site.policy) if workers else site.policy
    return played(Local(site, workers), Round(policy, config, seed), make_dialogues(silent=True))


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("workers", [1, 2, 3, 9])
def test_parts_are_merged_in_the_order_of_one_process(workers: int, groups: int) -> None:
    config = make_learning()
    config = config.model_copy(update={"online": config.online.model_copy(update={"groups": groups})})
    whole, parts = _play(config, 0), _play(config, workers)
    drop = ("action", "mean")  # tensors, compared below
    for ours, theirs in zip(whole.transitions, parts.transitions, strict=True):
        assert {k: getattr(ours, k) for k in ours.__slots__ if k not in drop} == {
            k: getattr(theirs, k) for k in theirs.__slots__ if k not in drop
        }
    assert list(whole.moments.items()) == list(parts.moments.items())
    assert list(whole.features_h) == list(parts.features_h) and list(whole.features_hw) == list(parts.features_hw)
    for ours, theirs in zip(vars_of(whole), vars_of(parts), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def vars_of(rollout: Rollout) -> list[torch.Tensor]:
    batch = to_batch([rollout])
    return [batch.h, batch.hw, batch.action, batch.mean, batch.reward, batch.state, batch.after]


def test_no_item_is_lost_or_doubled() -> None:
    for n in range(8):
        for parts in range(1, 5):
            items = list(range(n))
            assert sorted(x for part in deal(items, parts) for x in part) == items
            assert [x for part in blocks(items, parts, 3) for x in part] == items
            assert all(0 < len(part) <= 3 for part in blocks(items, parts, 3))


def test_learning_online_is_the_same_in_parts(tmp_path: Path) -> None:
    config, dialogues = make_learning(), make_dialogues()
    site, world = make_site(config, Limiter()), make_world(config)
    one, traces = learn(tmp_path / "one", config, dialogues, world)
    # Scripted models are the site's; what calls cost is on its account.
    two, again = learn(tmp_path / "two", config, dialogues, make_world(config), Local(site, 2))
    assert [_said(t) for t in traces] == [_said(t) for t in again]
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, atol=1e-5, rtol=0)
    assert site.ledger.to_json() == world.ledger.to_json()


def _said(trace: dict[str, object]) -> dict[str, object]:
    return {key: x for key, x in trace.items() if not key.startswith(("action", "value"))}


def _offline(
    path: Path, launcher: Launcher[Site] | None, config: Config
) -> tuple[dict[str, torch.Tensor], list[object]]:
    policy = make_policy(config)
    with Run.create(path, config, PRINT) as run:
        trained = offline(policy, few("train", 6), VowelJudge(), config, run, launcher=launcher)
        return dict(trained.trained_planner.state_dict()), list(run.traces())


def make_offline() -> Config:
    """Settings of learning from records, two dialogues at a time."""
    return Config(model=MODEL, clone=CloneConfig(backbone="frozen"), rl=RL.model_copy(update={"rounds": 2}))


def test_learning_offline_is_the_same_to_the_byte_where_parts_are(tmp_path: Path) -> None:
    config = make_offline()
    one, traces = _offline(tmp_path / "one", None, config)
    two, again = _offline(tmp_path / "two", Local(make_site(config, Limiter()), 2), config)
    assert traces == again
    assert all(torch.equal(two[name], weights) for name, weights in one.items())


def test_replies_and_judgements_are_the_same_in_parts(tmp_path: Path) -> None:
    config = make_offline()
    site, dialogues = make_site(config, Limiter()), few("test", 5)
    policies = {"Vanilla": Policy(site.policy.backbone, readout=site.policy.readout), "BC": site.policy}
    stored: list[Sequence[bytes]] = []
    for name, launcher in (("one", None), ("two", Local(site, 2))):
        replies = {who: write_replies(p, dialogues, config.rl, launcher=launcher) for who, p in policies.items()}
        (tmp_path / name).mkdir()
        evaluate(replies, [("BC", "Vanilla")], dialogues, [VowelJudge()], [], tmp_path / name, launcher=launcher)
        stored.append([(tmp_path / name / file).read_bytes() for file in ("judgements.jsonl", "dialogues.json")])
    assert stored[0] == stored[1]
