"""Cloning on data as people have them: without rejected replies, with long dialogues, on a backbone that others use."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pamdp import ranks
from pamdp.config import CloneConfig, Config, DataConfig, ModelConfig, RLConfig
from pamdp.data import load_sample, load_sample_pairs
from pamdp.errors import DataError
from pamdp.fingerprint import Fingerprint
from pamdp.models import checkpointing
from pamdp.models.backbone import Backbone
from pamdp.models.generate import DecodeRow, Sampling, generate
from pamdp.models.policy import Policy
from pamdp.models.recorded import reference_log_probs
from pamdp.runs import Run
from pamdp.train.bc import Cloner
from pamdp.train.clone import clone
from pamdp.train.examples import within_context
from pamdp.train.factory import load_clone_pairs, load_policy, new_policy, save_policy
from pamdp.train.offline import offline
from pamdp.train.parallel import Sharded, _Several
from pamdp.types import Dialogue
from tests.tools.families import make_family
from tests.tools.methods import VowelJudge
from tests.tools.tiny import make_tiny_backbone

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


@pytest.mark.parametrize("layers", ["above", "all"])
def test_an_untrained_action_costs_nothing(tiny_backbone: Backbone, layers: str) -> None:
    """Without embeddings, references are exactly as likely as under the plain model, and replies are its own."""
    clone_ = CONFIG.clone.model_copy(update={"lora_layers": layers})
    model = CONFIG.model.model_copy(update={"n_embeddings": 0})
    policy = new_policy(tiny_backbone, CONFIG.model_copy(update={"model": model, "clone": clone_}))
    dialogues = plain_dialogues(2)
    for dialogue in dialogues:
        plain, own = (reference_log_probs(p, dialogue) for p in (Policy(tiny_backbone), policy))
        for key, (log_probs,) in own.items():
            torch.testing.assert_close(log_probs, plain[key][0])
    histories = [d.history(1) for d in dialogues]
    assert policy.replies(histories, Sampling(8)) == Policy(tiny_backbone).replies(histories, Sampling(8))


def test_a_shift_means_the_same_in_scoring_and_in_writing(tiny_backbone: Backbone) -> None:
    """The greedy reply is likelier than any other, token by token, under the action that it was written under."""
    model = CONFIG.model.model_copy(update={"n_embeddings": 0})
    policy = new_policy(tiny_backbone, CONFIG.model_copy(update={"model": model}))
    assert policy.trained_planner.steering is not None
    policy.trained_planner.steering.normal_(generator=torch.Generator().manual_seed(0))
    prefix, action = policy.prefix(plain_dialogues(1)[0].history(1)), torch.ones(8)
    [row] = [DecodeRow(0, len(prefix.encoded.ids), None, 0, policy.trained_planner.steer(action))]
    [ids] = generate(tiny_backbone, [prefix], [row], Sampling(6, repetition_penalty=1.0), layer=policy.readout.layer)
    [own] = policy.log_probs(prefix, [policy.branch(prefix, -1, ids, action)])
    for k in range(len(ids)):
        others = [[*ids[:k], token] for token in range(0, 300, 7) if token != ids[k]]
        for scores in policy.log_probs(prefix, [policy.branch(prefix, -1, other, action) for other in others]):
            assert float(scores[k].detach()) <= float(own[k].detach())


def test_directions_come_last_where_what_is_below_them_learns(tiny_backbone: Backbone, tmp_path: Path) -> None:
    settings = {"lora_layers": "all", "lr_backbone": 0.05}
    config = CONFIG.model_copy(
        update={
            "model": CONFIG.model.model_copy(update={"n_embeddings": 0}),
            "clone": CONFIG.clone.model_copy(update=settings),
        }
    )
    dialogues = load_sample("train").dialogues[:3]
    with Run.create(tmp_path / "run", config, PRINT) as run:
        policy = clone(new_policy(tiny_backbone, config), dialogues, dialogues[:1], config, run)
    cloner = Cloner(policy, config.clone)
    before = {name: value.clone() for name, value in policy.trained_planner.state_dict().items()}
    cloner.prepare(dialogues, done=True)
    for name, value in policy.trained_planner.state_dict().items():
        if name != "actor.sigma":
            torch.testing.assert_close(value, before[name])  # fitted to the backbone as it is at the end
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
    chat, system = policy.backbone.chat, policy.system
    assert within_context(chat, [dialogue], second, system) == (dialogue,) and not capsys.readouterr().err
    [cut] = within_context(chat, [dialogue], second - 1, system)
    assert cut.turns == dialogue.turns[:1]
    assert "clone.max_context" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"no history fits into .*raise clone\.max_context"):
        within_context(chat, [dialogue], first - 1, system)
    config = CONFIG.model_copy(update={"clone": CONFIG.clone.model_copy(update={"max_context": second - 1})})
    _cloned(tiny_backbone, tmp_path / "run", config)
    assert "turns with longer histories are left out" in capsys.readouterr().err


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


def test_a_base_model_without_template_and_pad_token_is_cloned_and_reinforced(tmp_path: Path) -> None:
    bare = make_tiny_backbone()
    tokenizer = bare.tokenizer
    tokenizer.chat_template, tokenizer.pad_token = None, None
    bare.model.config.pad_token_id = bare.model.generation_config.pad_token_id = None
    backbone = Backbone(bare.model, tokenizer, "base", "0")
    policy = _cloned(backbone, tmp_path / "clone")
    with Run.create(tmp_path / "rl", CONFIG, PRINT) as run:
        trained = offline(policy, plain_dialogues(2), VowelJudge(), CONFIG, run)
    histories = [d.history(t) for d in plain_dialogues(2) for t in range(2)]
    alone = [trained.replies([history], Sampling(6))[0] for history in histories]
    assert trained.replies(histories, Sampling(6)) == alone and any(alone)


@pytest.mark.parametrize(
    ("model", "most", "passes"),
    [("sees all", 0, 4), ("sees all", 1000, 3), ("sees all", 10_000, 1), ("forgets", 10_000, 4), ("drops", 10_000, 1)],
)
def test_a_step_is_the_same_however_it_is_packed(
    model: str, most: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, gradients and draws of dialogues and a pair; a model that cannot pack keeps one dialogue at a time."""
    monkeypatch.setattr(checkpointing, "TOKENS", 300)  # some passes compute again, under the adapter
    settings = CONFIG.clone.model_copy(update={"lora_layers": "all", "batch_size": 4})
    found = []
    for tokens, wanted in ((1, 4), (most, passes)):
        backbone = {
            "sees all": lambda: make_tiny_backbone(dtype=torch.float64),
            "forgets": lambda: make_family("mistral"),
            "drops": lambda: make_family("stablelm"),
        }[model]()
        clone_ = settings.model_copy(update={"pack_tokens": tokens})
        cloner = Cloner(new_policy(backbone, CONFIG.model_copy(update={"clone": clone_})), clone_)
        examples, _ = cloner.prepare(plain_dialogues(3), load_sample_pairs("train").pairs[:2])
        assert [example.cloned for example in examples[:4]] == [True, True, True, False]
        own, forward = list[int](), cloner.parallel.forward
        monkeypatch.setattr(cloner.parallel, "forward", lambda e, x, f=forward, o=own: (o.append(len(e)), f(e, x))[1])
        rng, noise = random.Random(0), torch.Generator().manual_seed(0)
        logs = [cloner.update(examples[:4], rng, noise, 9) for _ in range(2)]
        assert len(own) == 2 * wanted and sum(own) == 8
        weights = [p for group in cloner.optimizer.param_groups for p in group["params"]]
        found.append((logs, [p.grad for p in weights if p.grad is not None]))
    (one, grads), (other, same) = found
    assert one[1]["nll"] != one[0]["nll"] and len(grads) > 8
    for log, again in zip(one, other, strict=True):
        assert again == pytest.approx(log, rel=1e-6)
    torch.testing.assert_close(same, grads, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "most", "idle"),
    [
        ([9, 9, 1, 9, 9, 1, 9, 9, 1, 1], 10, 0),
        ([5] * 7, 100, 0),
        ([5] * 7, 1, 2),
        ([3], 10, 2),
        ([20, 1, 1, 20, 1, 1], 10, 0),
        ([8, 1, 9, 7, 1, 9, 6], 10, 2),
    ],
)
def test_passes_of_several_processes_are_as_many(
    sizes: list[int], most: int, idle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DDP waits for everybody in every pass; every example counts once in all, and only who has none left idles."""
    monkeypatch.setattr(ranks, "world_size", lambda: 3)
    every = []
    for rank in range(3):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        every.append(_Several.passes(_Several.__new__(_Several), sizes, most))
    assert len({len(passes) for passes in every}) == 1
    assert all(len(own) == 1 or sum(sizes[i] for i in own) <= most for passes in every for own, _ in passes)
    counts = [(i, share) for passes in every for own, share in passes for i in own if share]
    assert sorted(counts) == [(i, 3.0) for i in range(len(sizes))]
    assert [own for passes in every for own, share in passes if not share] == [[0]] * idle
    alone = Sharded.passes(Sharded.__new__(Sharded), sizes, most)
    assert len(alone) == -(-len(sizes) // 3) and all(len(own) == 1 for own, _ in alone)
