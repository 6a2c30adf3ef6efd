"""Recomputing keeps less for the gradient and changes none; it refuses another adapter's gradient."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from pamdp.config import CloneConfig, Config
from pamdp.errors import ModelError
from pamdp.models import checkpointing
from pamdp.models.backbone import Backbone
from pamdp.models.checkpointing import checkpointed
from pamdp.train.bc import Cloner
from pamdp.train.factory import new_policy
from tests.tools.chats import NURSE
from tests.tools.learning import make_dialogues
from tests.tools.tiny import make_tiny_backbone


def _step(make_backbone: Callable[..., Backbone], what: str) -> tuple[list[Tensor], int]:
    """Gradients of one cloning step in float64, and the numbers that its passes kept for them."""
    config = CloneConfig.model_validate({"backbone": what, "lora_layers": "all", "steer": 0})
    policy = new_policy(make_backbone(dtype=torch.float64), Config(clone=config))
    assert policy.planner is not None
    policy.planner.to(torch.float64)
    cloner = Cloner(policy, config)
    examples, _ = cloner.prepare(make_dialogues()[:1])
    kept = 0

    def keep(x: Tensor) -> Tensor:
        nonlocal kept
        kept += x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        cloner.update(examples, random.Random(0), torch.Generator().manual_seed(0), 1)
    weights = [p for group in cloner.optimizer.param_groups for p in group["params"]]
    return [p.grad for p in weights if p.grad is not None], kept


@pytest.mark.parametrize("what", ["lora", "full"])
def test_gradients_stay_and_less_is_kept(
    make_backbone: Callable[..., Backbone],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, all_kept = _step(make_backbone, what)
    monkeypatch.setattr(checkpointing, "TOKENS", 0)
    again, kept = _step(make_backbone, what)
    assert len(plain) == len(again) > 4 and any(g.abs().max() > 0 for g in plain)
    torch.testing.assert_close(plain, again, rtol=1e-9, atol=1e-12)
    assert kept < 0.8 * all_kept


def test_only_long_passes_with_a_gradient_recompute_and_all_is_as_before(
    tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointing, "TOKENS", 8)
    block = tiny_backbone.trunk.get_submodule("layers.0.mlp")
    for tokens, grad, wanted in ((8, True, False), (9, True, True), (9, False, False)):
        with torch.set_grad_enabled(grad), checkpointed(tiny_backbone, tokens):
            assert ("forward" in vars(block)) == wanted
        assert "forward" not in vars(block)


def test_trunks_without_such_blocks_keep_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "TOKENS", 0)
    tiny = make_tiny_backbone()
    config = GPT2Config(vocab_size=len(tiny.tokenizer), n_embd=32, n_layer=1, n_head=2)
    backbone = Backbone(GPT2LMHeadModel(config), tiny.tokenizer)
    with checkpointed(backbone, 9):
        assert backbone.prefix(backbone.chat.history(NURSE, "")).final.shape[1] == 32


def test_a_gradient_under_another_adapter_is_refused(
    make_backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointing, "TOKENS", 0)
    config = CloneConfig(backbone="lora", lora_layers="all")
    policy = new_policy(make_backbone(), Config(clone=config))
    Cloner(policy, config)
    loss = policy.prefix(NURSE).final.square().sum()
    assert policy.adapter is not None and policy.backbone.active is None
    with pytest.raises(ModelError, match="under the adapter"):
        torch.autograd.backward(loss)
    with policy.active():
        torch.autograd.backward(policy.prefix(NURSE).final.square().sum())


def test_a_gpu_with_room_computes_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model keeps 2 layers x 19 x its width of 32 x 4 bytes of a token; a quarter of what is free may go."""
    backbone, tokens = make_tiny_backbone(), checkpointing.TOKENS + 1
    kept = tokens * 2 * 19 * 32 * 4
    for free, again in ((4 * kept - 1, True), (4 * kept, False)):
        monkeypatch.setattr(checkpointing, "free_bytes", lambda _device, free=free: free)
        with checkpointed(backbone, tokens):
            assert ("forward" in vars(backbone.layers[0].mlp)) == again


def test_what_torch_keeps_for_later_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, found in {"mem_get_info": (5, 80), "memory_reserved": 7, "memory_allocated": 4}.items():
        monkeypatch.setattr(torch.cuda, name, lambda _device, found=found: found)
    assert checkpointing.free_bytes(torch.device("cuda", 0)) == 8
    assert checkpointing.free_bytes(torch.device("cpu")) == 0  # nobody says
