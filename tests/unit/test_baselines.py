"""What each baseline learns from: the reply only, nobody else's turns, never a test user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pamdp.baselines import peft, sft
from pamdp.baselines.grpo import rewards
from pamdp.baselines.latent import find
from pamdp.baselines.method import Method, register
from pamdp.baselines.replies import PolicyReplier, veil
from pamdp.baselines.tune import make_trainer, require_trl
from pamdp.errors import ConfigError, DataError, JudgeError
from pamdp.judges.base import Case
from pamdp.models.backbone import Backbone
from pamdp.models.policy import Policy
from pamdp.registry import METHODS
from pamdp.types import Dialogue, Message, Persona, TimeStep, Turn
from tests.tools.chats import NURSE, chat
from tests.tools.methods import TUNE, VowelJudge, few, make_job

pytest.importorskip("trl")


def _person(name: str, turns: int = 3) -> Dialogue:
    """A dialogue in which every text of this user holds the user's own canary."""
    made = tuple(
        Turn(f"{name} asks {t}", f"{name} good {t}", f"{name} bad {t}", inferred=Persona(f"{name} inferred"))
        for t in range(turns)
    )
    return Dialogue(name, name, Persona(f"{name} profile", f"{name} personality"), made)


class Fits:
    """Stands for `fit`: remembers the texts that it was given, and changes nothing."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        self.learned: list[list[str]] = []

    def __call__(self, backbone: Backbone, examples: Sequence[sft.SFTExample], *_: object, **__: object) -> Backbone:
        decode = backbone.tokenizer.decode
        self.seen.append([decode(e["input_ids"]) for e in examples])
        told = [zip(e["input_ids"], e["completion_mask"], strict=True) for e in examples]
        self.learned.append([decode([i for i, m in pairs if m]) for pairs in told])
        return backbone


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    seen = Fits()
    monkeypatch.setattr(peft, "fit", seen)
    monkeypatch.setattr(sft, "fit", seen)
    return seen


def test_a_user_s_adapter_learns_from_that_user_s_earlier_turns_alone(tmp_path: Path, fits: Fits) -> None:
    users = [_person("anna"), _person("bert"), _person("cleo")]
    replier = peft.oppu(make_job(tmp_path, [_person("dora"), _person("emil")]))
    (task,) = fits.seen
    assert not any(name in text for text in task for name in ("anna", "bert", "cleo"))
    fits.seen.clear()
    fits.learned.clear()
    replier.write([veil(user) for user in users])
    # No adapter at the first turn; then one for each later turn.
    assert len(fits.seen) == 2 * len(users)
    for i, user in enumerate(users):
        for t, texts in enumerate(fits.seen[2 * i : 2 * i + 2], start=1):
            (said,) = texts
            assert fits.learned[2 * i + t - 1] == ["".join(f"{user.id} good {s}<|im_end|>" for s in range(t))]
            assert f"{user.id} asks {t - 1}" in said and f"{user.id} good {t - 1}" in said
            assert not any(other.id in said for other in users if other is not user)
            assert f"asks {t}" not in said and f"good {t}" not in said  # the turn that waits for its reply
            assert not any(word in said for word in ("bad", "profile", "personality", "inferred", "dora", "emil"))


def test_a_user_s_adapter_changes_the_reply_and_then_is_gone(tmp_path: Path) -> None:
    replier = peft.oppu(make_job(tmp_path))
    before = {name: weight.clone() for name, weight in replier.backbone.model.state_dict().items()}
    history = (*NURSE[:2], Message("user", "tea"))
    with replier.personal(history) as backbone:
        inside = backbone.model.state_dict()
        changed = {name.split(".")[-2] for name, weight in before.items() if not torch.equal(weight, inside[name])}
    assert changed == {"q_proj", "v_proj"}
    for name, weight in replier.backbone.model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    with pytest.raises(RuntimeError), replier.personal(history):
        raise RuntimeError
    assert all(torch.equal(w, before[name]) for name, w in replier.backbone.model.state_dict().items())


def test_retrieval_finds_the_exchange_that_is_like_the_message() -> None:
    history = chat("My cat is ill", "Poor cat", "I cook soup", "Nice", "I paint", "Lovely", "What does a cat eat?")
    assert peft.retrieve(history, 1) == ["They: My cat is ill\nYou: Poor cat"]
    assert [text.split()[1] for text in peft.retrieve(history, 9)] == ["My", "I", "I"]  # in the order they were said
    assert peft.retrieve(history, 0) == [] and peft.retrieve(history[:1], 3) == []


@pytest.mark.parametrize("name", ["FPFT", "CoT"])
def test_full_tuning_is_on_the_reply_only_and_lowers_its_loss(tmp_path: Path, name: str) -> None:
    job = make_job(tmp_path)
    many = TUNE.full.model_copy(update={"epochs": 6, "batch_size": 1})
    job = replace(job, tune=TUNE.model_copy(update={"full": many}))
    find(name).train(job)
    losses = [row["loss"] for row in job.open(name, job.config, job.load()).metrics()]
    assert len(losses) == 6 * sum(len(d.turns) for d in job.train)
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])
    backbone = job.load()
    plain = PolicyReplier(Policy(backbone), job.config.rl).reference_nll(job.train)
    if name == "FPFT":
        # The first step's loss is the bare model's on one reply: a loss on the history too would not be among these.
        assert any(losses[0] == pytest.approx(nll, rel=1e-3) for nll in plain.values())


def test_cot_learns_the_profile_first_and_says_only_the_reply(tmp_path: Path, fits: Fits) -> None:
    job = make_job(tmp_path, [_person("anna", 1)])
    job = replace(job, tune=TUNE.model_copy(update={"thought": 40}))
    thinker = sft.cot(job)
    (texts,) = fits.seen
    assert texts[0].endswith("anna inferred\nanna good 0<|im_end|>")
    assert thinker.said("A nurse.\nHello there.\nBye.").startswith("Hello")
    assert thinker.said("No second line") != "" and thinker.said("A nurse.\n") != ""


def test_nothing_to_learn_from_is_said(tmp_path: Path) -> None:
    bare = [replace(d, turns=tuple(replace(t, rejected=None) for t in d.turns)) for d in few("train", 1)]
    with pytest.raises(DataError, match="preferred and a rejected"):
        find("DPO").train(make_job(tmp_path, bare))
    silent = [replace(d, turns=(Turn("hello"),)) for d in bare]
    with pytest.raises(DataError, match="no training turn"):
        find("FPFT").train(make_job(tmp_path, silent))


def test_grpo_is_rewarded_by_our_reward(tmp_path: Path) -> None:
    """Against Vanilla's reply, and None where the judge fails."""

    class Moody(VowelJudge):
        def judge(self, cases: Sequence[Case], progress: object = None) -> list:
            if any(c.a == "fail" for c in cases):
                raise JudgeError("no verdict")
            return super().judge(cases)

    job = replace(make_job(tmp_path), judge=Moody)
    dialogue = job.train[0]
    steps = [TimeStep(dialogue.id, t, dialogue.history(t), dialogue.persona) for t in range(2)]
    vanilla = PolicyReplier(Policy(job.load()), job.config.rl).write([veil(dialogue)])
    said = [[{"role": "assistant", "content": text}] for text in ("aaaa", vanilla[dialogue.id, 1], "fail")]
    found = rewards(job, job.load(), steps)(completions=said, state=[0, 1, 0], prompts=[], trainer_state=None)
    assert found[0] == pytest.approx(0.8) and found[1] == pytest.approx(0.5) and found[2] is None


def test_grpo_learns_from_fewer_states_than_a_batch(tmp_path: Path) -> None:
    job = make_job(tmp_path, few("train", 1, 1))
    assert TUNE.grpo.batch_size > len(job.train[0].turns)
    find("GRPO").train(job)
    assert job.open("GRPO", job.config, job.load()).metrics()


def test_methods_of_one_seed_share_the_cloned_policy(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    for name in ("RL-base", "PAMDP"):
        find(name).train(job)
    assert {path.name for path in tmp_path.iterdir()} == {"clone", "RL-base", "PAMDP"}
    stored = (tmp_path / "clone" / "policy" / "planner.safetensors").stat()
    find("BC").train(job)
    assert (tmp_path / "clone" / "policy" / "planner.safetensors").stat().st_mtime_ns == stored.st_mtime_ns


def test_what_trainers_are_told(tiny_backbone: Backbone, tmp_path: Path) -> None:
    require_trl()
    rows = [sft.sft_example([1, 2], [3])]
    told = make_trainer("SFT", tiny_backbone, rows, TUNE.dpo, tmp_path, 7, packing=False).args
    assert (told.seed, told.data_seed, told.save_strategy, told.report_to) == (7, 7, "no", [])
    assert told.use_cpu and not told.bf16


def test_methods_are_found_by_name() -> None:
    assert set(METHODS) >= {
        "Vanilla", "Prompt", "PEFT", "FPFT", "CoT", "BC", "RL-base", "UAAC", "DCRL", "PAMDP", "ODC", "DPO", "GRPO"
    }  # fmt: skip
    with pytest.raises(ConfigError, match="did you mean 'PAMDP'"):
        find("PAMPD")
    own = register(Method("Own", find("Vanilla").train))
    assert find("Own") is own
