"""Several histories in one clean pass come out as each does alone: states, keys and values, and what follows them."""

from __future__ import annotations

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM, StableLmConfig, StableLmForCausalLM

from pamdp.errors import ModelError
from pamdp.models import prefill as prefilling
from pamdp.models.backbone import Backbone
from pamdp.models.prefill import prefill
from pamdp.models.prefix import Prefix
from tests.tools.chats import ECHO, NURSE, SYSTEM
from tests.tools.tiny import make_tiny_backbone

CHATS = (NURSE, ECHO, NURSE[:3], ECHO[:1])


def _same(mine: Prefix, theirs: Prefix) -> None:
    assert mine.encoded == theirs.encoded
    torch.testing.assert_close((mine.states, mine.final), (theirs.states, theirs.final), rtol=1e-9, atol=1e-11)
    for a, b in zip(mine.cache.layers, theirs.cache.layers, strict=True):
        torch.testing.assert_close((a.keys, a.values), (b.keys, b.values), rtol=1e-9, atol=1e-11)


@pytest.fixture
def backbone() -> Backbone:
    """Two ways to compute one thing agree closely in float64."""
    return make_tiny_backbone(dtype=torch.float64)


@pytest.mark.parametrize(("layer", "shallow"), [(-1, False), (1, False), (1, True)])
@pytest.mark.parametrize("most", [prefilling.TOKENS, 150, 1])
def test_a_history_is_what_it_is_alone(
    backbone: Backbone, layer: int, shallow: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefilling, "TOKENS", most)
    encoded = [backbone.chat.history(chat, SYSTEM) for chat in CHATS]
    together = prefill(backbone, encoded, layer, shallow=shallow)
    for mine, one in zip(together, encoded, strict=True):
        _same(mine, backbone.prefix(one, layer, shallow=shallow))


def test_histories_go_on_together_and_leave_what_they_continue_as_it_was(backbone: Backbone) -> None:
    first = [backbone.chat.history(chat[:1], SYSTEM) for chat in (NURSE, ECHO)]
    whole = [backbone.chat.history(chat, SYSTEM) for chat in (NURSE, ECHO, NURSE)]
    before = prefill(backbone, first)
    after = prefill(backbone, whole, before=[*before, None])
    for mine, one in zip(after, whole, strict=True):
        _same(mine, backbone.prefix(one))
    for mine, one in zip(before, first, strict=True):
        _same(mine, backbone.prefix(one))
    with pytest.raises(ModelError, match="does not continue"):
        prefill(backbone, whole[1::-1], before=before)


def test_the_products_run_once_for_all(backbone: Backbone) -> None:
    rows: list[int] = []
    backbone.trunk.layers[0].mlp.register_forward_hook(lambda _m, _i, out: rows.append(out.shape[1]))
    encoded = [backbone.chat.history(chat, SYSTEM) for chat in CHATS]
    prefill(backbone, encoded)
    assert rows == [sum(len(one.ids) for one in encoded)]


def test_models_that_attend_otherwise_run_one_by_one(backbone: Backbone) -> None:
    backbone.model.set_attn_implementation("eager")
    rows: list[int] = []
    backbone.trunk.layers[0].mlp.register_forward_hook(lambda _m, _i, out: rows.append(out.shape[1]))
    encoded = [backbone.chat.history(chat, SYSTEM) for chat in CHATS]
    together = prefill(backbone, encoded)
    assert rows == [len(one.ids) for one in encoded]
    for mine, one in zip(together, encoded, strict=True):
        _same(mine, backbone.prefix(one))


@pytest.mark.parametrize("kind", ["drops", "forgets"])
def test_layers_that_cannot_keep_histories_apart_run_one_by_one(kind: str) -> None:
    """StableLm's layers do not hand on what a pass is given; Mistral's forget what lies too far back."""
    tiny = make_tiny_backbone()
    sizes = dict(vocab_size=len(tiny.tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2)
    heads = dict(num_attention_heads=4, num_key_value_heads=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = (
            StableLmForCausalLM(StableLmConfig(**sizes, **heads, initializer_range=0.3))
            if kind == "drops"
            else MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=8, initializer_range=0.3))
        ).double()
    backbone = Backbone(model, tiny.tokenizer)
    encoded = [backbone.chat.history(chat, SYSTEM) for chat in CHATS]
    for mine, one in zip(prefill(backbone, encoded, 1), encoded, strict=True):
        _same(mine, backbone.prefix(one, 1))


def test_gradients_reach_every_history(backbone: Backbone) -> None:
    weight = backbone.trunk.layers[0].mlp.up_proj.weight.requires_grad_()
    encoded = [backbone.chat.history(chat, SYSTEM) for chat in CHATS]
    sums = []
    for prefixes in (prefill(backbone, encoded), [backbone.prefix(one) for one in encoded]):
        weight.grad = None
        torch.autograd.backward(torch.stack([p.final.square().sum() for p in prefixes]).sum())
        assert weight.grad is not None
        sums.append(weight.grad)
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-8, atol=1e-10)
