"""The contract of whatever writes replies, and how rollouts come by it; vLLM's part is in test_vllm.py."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from pamdp import api
from pamdp.config import MAY_CHANGE, CloneConfig, Config, EngineConfig, EvalConfig, ModelConfig
from pamdp.engines import vllm
from pamdp.env.dialogue import DialogueEnv
from pamdp.env.user import RecordedUser
from pamdp.errors import ConfigError, ModelError
from pamdp.models.actor import Planner
from pamdp.models.backbone import Backbone, Readout
from pamdp.models.generate import DecodeRow, Sampling, generate
from pamdp.models.policy import Policy
from pamdp.rollout import collect
from pamdp.settings import load
from pamdp.transitions import Rollout
from pamdp.types import Dialogue, Persona, Turn
from pamdp.workflows import backbones
from tests.tools.chats import CHATS, SYSTEM
from tests.tools.writers import check_writer

VLLM = EngineConfig(kind="vllm")


@dataclass
class Recorder:
    """`generate`, and how deep the passes were that it was given."""

    whole: list[bool] = field(default_factory=list)

    def __call__(self, backbone, prefixes, rows, sampling, batch=64, progress=None, layer=-1):
        self.whole += [len(prefix.cache.layers) == len(backbone.layers) for prefix in prefixes]
        whole = [backbone.prefix(prefix.encoded, layer) for prefix in prefixes]
        return generate(backbone, whole, rows, sampling, batch, progress, layer)


def test_generate_keeps_the_contract(make_backbone: Callable[..., Backbone]) -> None:
    backbone = make_backbone(dtype=torch.float64)
    with torch.no_grad():
        prefixes = [backbone.prefix(backbone.chat.history(chat, SYSTEM)) for chat in CHATS]
    rows = [
        DecodeRow(i, head, None if k == 1 else torch.randn(k + 1, 32), 7 * i + k, torch.randn(32) if k else None)
        for i, prefix in enumerate(prefixes)
        for head in prefix.encoded.heads
        for k in range(3)
    ]
    check_writer(generate, backbone, prefixes, rows, 1)


@pytest.mark.parametrize("scored", [False, True])
def test_a_rollout_is_written_by_the_writer_of_its_backbone(
    make_backbone: Callable[..., Backbone], scored: bool
) -> None:
    backbone = make_backbone()
    planner = Planner(32, 32, d_a=4, n=0, steers=True)
    assert planner.steering is not None
    planner.steering.normal_(generator=torch.Generator().manual_seed(0))
    policy = Policy(backbone, planner, readout=Readout(("user",), 1))
    turns = tuple(Turn(text, "Soup.") for text in ("What should I cook?", "And then?"))
    dialogues = [Dialogue(f"d{i}", f"u{i}", Persona(), turns[: 2 - i]) for i in range(2)]

    def play() -> Rollout:
        env = DialogueEnv([RecordedUser(dialogue) for dialogue in dialogues])
        return collect(policy, env, Sampling(8, 0.7), samples=2, scored=scored)

    ours = play()
    backbone.writer = recorder = Recorder()
    theirs = play()
    assert [t.reply for t in theirs.transitions] == [t.reply for t in ours.transitions]
    assert len(ours.transitions) == 6
    for a, b in zip(ours.transitions, theirs.transitions, strict=True):
        assert (a.score is None) is (not scored)
        assert a.score is None or torch.equal(a.score, b.score)
    for key, feature in ours.features_h.items():
        torch.testing.assert_close(theirs.features_h[key], feature, rtol=1e-5, atol=1e-5)
    assert recorder.whole == [scored] * len(recorder.whole) and recorder.whole, "H(h) alone needs lower layers only"


def test_engines_are_settings_of_here_and_now(make_backbone: Callable[..., Backbone]) -> None:
    assert Config().engine.kind == EvalConfig().engine.kind == "hf"
    assert {"engine.kind", "engine.cache_gb"} <= set(MAY_CHANGE)
    with pytest.raises(ConfigError, match=r"engine.kind: .*'hf' or 'vllm'"):
        load(Config, (), ["engine.kind=tgi"])
    with pytest.raises(ConfigError, match="use_engine"):
        api.clone(make_backbone(), (), settings={"engine.kind": "vllm"})
    # What a run was trained with is no setting of whoever reads it.
    bare, own = backbones(Config(engine=VLLM), lambda _: make_backbone())
    assert bare is own and bare.writer is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"clone": CloneConfig(backbone="full")}, "clone.backbone=full changes them; set engine.kind=hf"),
        ({"model": ModelConfig(quantization="4bit")}, "model.quantization=4bit; set engine.kind=hf"),
        ({}, "vLLM is not installed"),
    ],
)
def test_what_vllm_cannot_do_is_refused_before_a_backbone_is_loaded(
    settings: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "find_spec", lambda name: None if name == "vllm" else importlib.util.find_spec(name))
    with pytest.raises((ConfigError, ModelError), match=said):
        backbones(Config(**settings), lambda _: pytest.fail("a backbone was loaded"), VLLM)
