"""The public API: names are found lazily, objects are new, what is asked wrongly is one line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pamdp
from pamdp.data import load_sample
from pamdp.errors import ConfigError, DataError, ModelError, RunError
from pamdp.models.backbone import Backbone
from pamdp.types import Dialogue, Message
from tests.tools.methods import VowelJudge

SMALL = {
    "model.d_a": 8, "model.depth": 0.5, "clone.epochs": 1, "clone.batch_size": 2, "rl.samples": 2, "rl.epochs": 2,
    "rl.batch_size": 4, "rl.actor_every": 1, "rl.max_reply": 6, "rl.dialogues": 2,
}  # fmt: skip


def _few(n: int, part: str = "train") -> list[Dialogue]:
    return [replace(d, turns=d.turns[:2]) for d in load_sample(part).dialogues[:n]]


@pytest.fixture
def cloned(tiny_backbone: Backbone) -> pamdp.Policy:
    return pamdp.clone(tiny_backbone, _few(3), settings=SMALL)


def test_import_loads_no_model_library() -> None:
    code = (
        "import sys, pamdp; dir(pamdp); print([m for m in ('torch', 'transformers', 'pydantic') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented() -> None:
    assert set(pamdp.__all__) == set(pamdp._LOOK_UP)
    for name in pamdp.__all__:
        assert getattr(pamdp, name).__doc__, name
    assert set(pamdp.__all__) <= set(dir(pamdp))
    with pytest.raises(AttributeError, match=r"no attribute 'lode'; public names: .*load"):
        _ = pamdp.lode  # type: ignore[attr-defined]


def test_the_whole_way(tiny_backbone: Backbone, tmp_path: Path) -> None:
    before = {name: weight.clone() for name, weight in tiny_backbone.model.state_dict().items()}
    clone = pamdp.clone(tiny_backbone, _few(3), run=tmp_path / "bc", settings=SMALL)
    planner = {name: weight.clone() for name, weight in clone.trained_planner.state_dict().items()}

    @pamdp.advantage("mine", oracle_target="full")
    def mine(b: object) -> torch.Tensor:
        return b.reward + b.discount * b.v_h_next - b.v_hw  # type: ignore[attr-defined,no-any-return]

    judge = VowelJudge()
    agent = pamdp.reinforce(
        clone, _few(3), judge=judge, advantage="mine", run=tmp_path / "rl", settings={"rl.rounds": 2}
    )
    assert agent.config.rl.advantage == "mine" and agent.config.clone == clone.config.clone
    assert agent.adapter is clone.adapter and agent.backbone is clone.backbone is tiny_backbone
    for name, weight in planner.items():
        assert torch.equal(clone.trained_planner.state_dict()[name], weight), name
    now = tiny_backbone.model.state_dict()
    assert all(torch.equal(now[name.replace(".weight", ".base_layer.weight")] if name not in now else now[name], weight)
               for name, weight in before.items())  # fmt: skip
    found = pamdp.evaluate({"BC": clone, "mine": agent}, _few(2, "test"), judges=[judge])
    assert [(r.method, r.baseline) for r in found.rates] == [("BC", "Vanilla"), ("mine", "Vanilla"), ("mine", "BC")]
    assert all(r.n == 4 for r in found.rates) and "mine" in str(found)
    for folder, policy in (("bc", clone), ("rl", agent)):
        again = pamdp.load(tmp_path / folder, tiny_backbone)
        assert again.reply("Where do I live?") == policy.reply("Where do I live?")
    assert pamdp.load(tmp_path / "bc" / "policy", tiny_backbone).users == clone.users


def test_all_weights_are_cloned_on_a_copy(tiny_backbone: Backbone) -> None:
    before = {name: weight.clone() for name, weight in tiny_backbone.model.state_dict().items()}
    policy = pamdp.clone(tiny_backbone, _few(2), settings={**SMALL, "clone.backbone": "full"})
    assert policy.backbone is not tiny_backbone
    assert all(torch.equal(weight, before[name]) for name, weight in tiny_backbone.model.state_dict().items())
    with pytest.raises(ConfigError, match="give `bare`"):
        pamdp.evaluate({"BC": policy}, _few(1, "test"), judges=[VowelJudge()])
    found = pamdp.evaluate({"BC": policy}, _few(1, "test"), judges=[VowelJudge()], bare=tiny_backbone)
    assert found.rates[0].n == 2


def test_replies_to_texts_and_messages(cloned: pamdp.Policy) -> None:
    chat = [Message("user", "Hi."), {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Bye."}]
    assert cloned.reply("Hi.") == cloned.reply(chat[:1])
    assert cloned.reply(chat) == cloned.reply([{"role": m.role, "content": m.content} if isinstance(m, Message) else m
                                               for m in chat])  # fmt: skip
    for wrong in ("", [], chat[:2], chat[1:], [{"role": "user"}], [{"role": "system", "content": "x"}, chat[0]]):
        with pytest.raises(DataError, match="message"):
            cloned.reply(wrong)


def test_what_is_asked_wrongly_is_one_line(cloned: pamdp.Policy, tmp_path: Path) -> None:
    judge = VowelJudge()
    with pytest.raises(ConfigError, match=r"no advantage 'pamd'; did you mean 'pamdp'\?"):
        pamdp.reinforce(cloned, _few(1), judge=judge, advantage="pamd")
    with pytest.raises(ConfigError, match=r"unknown setting clone\.epoch; did you mean clone\.epochs"):
        pamdp.clone(cloned.backbone, _few(1), settings={"clone.epoch": 1})
    with pytest.raises(ConfigError, match=r"clone\.lora_rank=2 is asked for, but the policy was cloned with 8"):
        pamdp.reinforce(cloned, _few(1), judge=judge, settings={"clone.lora_rank": 2})
    with pytest.raises(RunError, match=r"BC learned from 3 of 3 test users .*; split as it did"):
        pamdp.evaluate({"BC": cloned}, _few(3), judges=[judge])
    for none in ({}, {"Vanilla": cloned}):
        with pytest.raises(ConfigError, match="none of them called Vanilla"):
            pamdp.evaluate(none, _few(1, "test"), judges=[judge])
    with pytest.raises(RunError, match="no policy in"):
        pamdp.load(tmp_path, cloned.backbone)
    with pytest.raises(ModelError, match="this policy has no planner"):
        pamdp.reinforce(pamdp.Policy(cloned.backbone), _few(1), judge=judge)
