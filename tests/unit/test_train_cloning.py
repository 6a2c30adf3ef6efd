"""Cloning on data as people have them: without rejected replies, with long dialogues, on a backbone that others use."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pamdp.config import CloneConfig, Config, DataConfig, ModelConfig, RLConfig
from pamdp.data import load_sample, load_sample_pairs
from pamdp.errors import DataError
from pamdp.fingerprint import Fingerprint
from pamdp.models.backbone import Backbone
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy
from pamdp.runs import Run
from pamdp.train.bc import Cloner
from pamdp.train.clone import clone
from pamdp.train.examples import within_context
from pamdp.train.factory import load_clone_pairs, load_policy, new_policy, save_policy
from pamdp.train.offline import offline
from pamdp.types import Dialogue
from tests.tools.methods import VowelJudge

CONFIG = Config(
    model=ModelConfig(d_a=8, depth=0.5),
    clone=CloneConfig(epochs=2, batch_size=2),
    rl=RLConfig(samples=2, epochs=2, batch_size=4, actor_every=1, max_reply=6, dialogues=2),
)
PRINT = Fingerprint(data="0", model="tiny", revision="0")


def plain_dialogues(n: int) -> list[Dialogue]:
    """Dialogues as most people have them: one reply to a history, and it was said."""
    return [
        replace(d, turns=tuple(replace(t, rejected=None, chosen="preferred") for t in d.turns[:2]))
        for d in load_sample("train").dialogues[:n]
    ]


def _cloned(backbone: Backbone, path: Path, config: Config = CONFIG, n: int = 3) -> Policy:
    with Run.create(path, config, PRINT) as run:
        return clone(new_policy(backbone, config), plain_dialogues(n), plain_dialogues(1), config, run)


def _weights(policy: Policy) -> dict[str, torch.Tensor]:
    model = dict(policy.backbone.model.state_dict())
    return {k: v.clone() for k, v in {**model, **policy.trained_planner.state_dict()}.items()}


@pytest.mark.parametrize("pairs", [0, 4])
def test_a1_learns_without_rejected_replies(tiny_backbone: Backbone, pairs: int) -> None:
    """Nothing but gradients can teach it, and an action that nothing gave a meaning shifts nothing."""
    policy = new_policy(tiny_backbone, CONFIG)
    cloner, before = Cloner(policy, CONFIG.clone), policy.trained_planner.actor.a1.weight.detach().clone()
    examples, fitted = cloner.prepare(plain_dialogues(6), load_sample_pairs("train").pairs[:pairs])
    rng, noise = random.Random(0), torch.Generator().manual_seed(0)
    for _ in range(2):
        cloner.update(examples, rng, noise, 2)
    assert fitted is None
    assert not torch.equal(policy.trained_planner.actor.a1.weight, before)
    assert policy.trained_planner.steering is not None and not policy.trained_planner.steering.any()


def test_rejected_replies_give_actions_their_meaning(tiny_backbone: Backbone) -> None:
    policy = new_policy(tiny_backbone, CONFIG)
    _, fitted = Cloner(policy, CONFIG.clone).prepare(load_sample("train").dialogues[:3])
    assert fitted is not None
    assert policy.trained_planner.steering is not None and policy.trained_planner.steering.any()


def test_bundled_pairs_come_with_the_bundled_sample_only(tmp_path: Path) -> None:
    assert load_clone_pairs(Config()).pairs == load_sample_pairs("train").pairs
    assert not load_clone_pairs(Config(data=DataConfig(path=str(tmp_path / "mine.jsonl")))).pairs
    asked = DataConfig(path=str(tmp_path / "mine.jsonl"), pairs="sample")
    assert load_clone_pairs(Config(data=asked)).pairs == load_sample_pairs("train").pairs
    assert not load_clone_pairs(Config(data=DataConfig(pairs=""))).pairs


def test_dialogues_are_cut_where_their_histories_outgrow_the_context(
    tiny_backbone: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = new_policy(tiny_backbone, CONFIG)
    [dialogue] = plain_dialogues(1)
    first, second = policy.backbone.chat.history(dialogue.history(1), policy.system).heads
    assert within_context(policy, [dialogue], second) == (dialogue,) and not capsys.readouterr().err
    [cut] = within_context(policy, [dialogue], second - 1)
    assert cut.turns == dialogue.turns[:1]
    assert "clone.max_context" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"no history fits into .*raise clone\.max_context"):
        within_context(policy, [dialogue], first - 1)
    config = CONFIG.model_copy(update={"clone": CONFIG.clone.model_copy(update={"max_context": second - 1})})
    _cloned(tiny_backbone, tmp_path / "run", config, n=1)
    assert "1 turns with longer histories are left out" in capsys.readouterr().err


def test_two_policies_share_a_backbone(make_backbone: Callable[..., Backbone], tmp_path: Path) -> None:
    """Each replies as it does alone, in any order; the second takes nothing from the first."""
    folders = []
    for seed in (0, 1):
        rate = {"lr_backbone": 0.3, "lora_layers": "all"}
        config = CONFIG.model_copy(update={"seed": seed, "clone": CONFIG.clone.model_copy(update=rate)})
        _cloned(make_backbone(), tmp_path / str(seed), config)
        folders.append(tmp_path / str(seed) / "policy")
    histories = [d.history(0) for d in plain_dialogues(4)]
    alone = [load_policy(folder, make_backbone()).replies(histories, Sampling(8)) for folder in folders]
    assert alone[0] != alone[1]
    shared = make_backbone()
    vanilla = Policy(shared)
    plain = vanilla.replies(histories, Sampling(8))
    both = [load_policy(folder, shared) for folder in folders]
    assert [p.replies(histories, Sampling(8)) for p in (both[1], both[0], both[1])] == [alone[1], alone[0], alone[1]]
    assert vanilla.replies(histories, Sampling(8)) == plain
    names = [policy.adapter.name for policy in both if policy.adapter is not None]
    assert sorted(shared.model.peft_config) == sorted(names) and len(set(names)) == 2
    del both
    assert not getattr(shared.model, "peft_config", {})
    assert vanilla.replies(histories, Sampling(8)) == plain


def test_reinforcement_leaves_the_clone_as_it_is(tiny_backbone: Backbone, tmp_path: Path) -> None:
    cloned = _cloned(tiny_backbone, tmp_path / "bc")
    before = _weights(cloned)
    with Run.create(tmp_path / "rl", CONFIG, PRINT) as run:
        trained = offline(cloned, plain_dialogues(3), VowelJudge(), CONFIG, run)
    assert trained is not cloned and trained.adapter is cloned.adapter
    after = _weights(cloned)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(trained.trained_planner.actor.a1.bias, cloned.trained_planner.actor.a1.bias)
    assert trained.users == cloned.users == {d.user_id for d in plain_dialogues(3)}
    assert not any(p.requires_grad for p in tiny_backbone.model.parameters())


def test_a_stored_policy_knows_its_settings_and_its_users(tiny_backbone: Backbone, tmp_path: Path) -> None:
    policy = replace(new_policy(tiny_backbone, CONFIG), users=frozenset({"b", "a"}))
    save_policy(policy, tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy", tiny_backbone)
    assert (loaded.config, loaded.users) == (CONFIG, {"a", "b"})
