"""Hidden states are the model's own, read where they should be; adapters come and go without a trace."""

import copy

import pytest
import torch
from peft import LoraConfig

from pamdp.errors import ModelError
from pamdp.models.backbone import Backbone, Readout
from pamdp.models.prefix import fork
from tests.tools.chats import ECHO, NURSE, SYSTEM
from tests.tools.tiny import make_tiny_backbone


def add_adapters(backbone: Backbone, *names: str) -> None:
    """LoRA adapters that change the output (a fresh one does not: its B is 0)."""
    for name in names:
        backbone.model.add_adapter(LoraConfig(r=2, target_modules=["q_proj", "v_proj"]), name)
    generator = torch.Generator().manual_seed(1)
    for key, weight in backbone.model.named_parameters():
        if "lora_" in key:
            weight.data.normal_(std=0.3, generator=generator)


def test_a_backbone_learns_nothing_unless_asked(tiny_backbone: Backbone) -> None:
    assert not any(p.requires_grad for p in tiny_backbone.model.parameters())
    assert not tiny_backbone.model.training
    assert (tiny_backbone.d, tiny_backbone.dtype, tiny_backbone.device.type) == (32, torch.float32, "cpu")


@pytest.mark.parametrize("layer", [-1, 0, 1, 2])
def test_states_are_those_of_a_plain_forward_pass(tiny_backbone: Backbone, layer: int) -> None:
    encoded = tiny_backbone.chat.history(NURSE, SYSTEM)
    prefix = tiny_backbone.prefix(encoded, layer)
    plain = tiny_backbone.model(torch.tensor([encoded.ids]), output_hidden_states=True)
    # Hugging Face applies the final norm to the last entry; before it, layer 2 of 2 is the block's own output.
    caught: list[torch.Tensor] = []
    handle = tiny_backbone.trunk.norm.register_forward_pre_hook(lambda _m, args: caught.append(args[0][0]))
    tiny_backbone.model(torch.tensor([encoded.ids]))
    handle.remove()
    expected = caught[0] if layer == 2 else plain.hidden_states[layer][0]
    torch.testing.assert_close(prefix.states, expected)
    torch.testing.assert_close(prefix.final, plain.hidden_states[-1][0])
    torch.testing.assert_close(tiny_backbone.head(prefix.final), plain.logits[0])


def test_readouts_by_hand(tiny_backbone: Backbone) -> None:
    encoded = tiny_backbone.chat.history(NURSE, SYSTEM)
    prefix = tiny_backbone.prefix(encoded)
    spans = [prefix.states[a:b] for a, b in encoded.users]
    for t in range(3):
        header = prefix.states[encoded.heads[t] - 1]
        user = spans[t].mean(0)
        users = torch.cat(spans[: t + 1]).mean(0)
        torch.testing.assert_close(prefix.read(t, ("header",)), header)
        torch.testing.assert_close(prefix.read(t, ("users", "user", "header")), torch.cat([users, user, header]))


@pytest.mark.parametrize("places", [("header",), ("user",), ("users",), ("users", "user")])
def test_h_depends_on_no_later_turn(tiny_backbone: Backbone, places: tuple[str, ...]) -> None:
    whole = tiny_backbone.prefix(tiny_backbone.chat.history(NURSE, SYSTEM))
    for t in range(3):
        part = tiny_backbone.prefix(tiny_backbone.chat.history(NURSE[: 2 * t + 1], SYSTEM))
        torch.testing.assert_close(whole.read(t, places), part.read(t, places))


@pytest.mark.parametrize("layer", [-1, 1])
def test_a_pass_continues_where_the_last_turn_ended(tiny_backbone: Backbone, layer: int) -> None:
    encode = tiny_backbone.chat.history
    grown = None
    for t in range(3):
        grown = tiny_backbone.prefix(encode(NURSE[: 2 * t + 1], SYSTEM), layer, before=grown)
    whole = tiny_backbone.prefix(encode(NURSE, SYSTEM), layer)
    torch.testing.assert_close(grown.states, whole.states)
    torch.testing.assert_close(grown.final, whole.final)
    assert grown.cache.get_seq_length() == len(whole.encoded.ids)
    with pytest.raises(ModelError, match="does not continue"):
        tiny_backbone.prefix(encode(ECHO, SYSTEM), layer, before=grown)


@pytest.mark.parametrize("places", [(), ("head",), ("users", "me")])
def test_an_unknown_readout_is_refused(places: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="header, user, users"):
        Readout(places)


def test_a_fork_grows_without_its_origin(tiny_backbone: Backbone) -> None:
    encoded = tiny_backbone.chat.history(NURSE, SYSTEM)
    cache = tiny_backbone.prefix(encoded).cache
    before = [copy.deepcopy((layer.keys, layer.values)) for layer in cache.layers]
    twin = fork(cache)
    tiny_backbone.trunk(input_ids=torch.tensor([[5, 6]]), past_key_values=twin, use_cache=True)
    assert twin.get_seq_length() == len(encoded.ids) + 2
    assert cache.get_seq_length() == len(encoded.ids)
    for layer, (keys, values) in zip(cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)


def test_each_adapter_says_something_else_and_none_is_the_bare_model(tiny_backbone: Backbone) -> None:
    encoded = tiny_backbone.chat.history(NURSE, SYSTEM)
    bare = tiny_backbone.prefix(encoded).final
    add_adapters(tiny_backbone, "one", "two")
    states = {}
    for name in ("one", "two", None):
        with tiny_backbone.adapter(name):
            states[name] = tiny_backbone.prefix(encoded).final
    assert torch.equal(states[None], bare)
    assert not torch.allclose(states["one"], bare) and not torch.allclose(states["one"], states["two"])


def test_adapters_nest_and_leave_what_they_found(tiny_backbone: Backbone) -> None:
    encoded = tiny_backbone.chat.history(NURSE, SYSTEM)
    add_adapters(tiny_backbone, "one", "two")
    with tiny_backbone.adapter("one"):
        one = tiny_backbone.prefix(encoded).final
        with tiny_backbone.adapter(None):
            assert not torch.allclose(tiny_backbone.prefix(encoded).final, one)
            with tiny_backbone.adapter("two"):
                assert not torch.allclose(tiny_backbone.prefix(encoded).final, one)
        assert torch.equal(tiny_backbone.prefix(encoded).final, one)
        with pytest.raises(RuntimeError, match="boom"), tiny_backbone.adapter("two"):
            raise RuntimeError("boom")
        assert torch.equal(tiny_backbone.prefix(encoded).final, one)


def test_a_block_restores_whichever_adapter_was_in_use(tiny_backbone: Backbone) -> None:
    assert tiny_backbone.active is None
    add_adapters(tiny_backbone, "one", "two")
    for name in ("two", "one", None):
        with tiny_backbone.adapter(name):
            assert tiny_backbone.active == name
        # The adapter that was added last.
        assert tiny_backbone.active == "two"


@pytest.mark.parametrize("other", [None, "two"])
def test_switching_changes_nothing_about_what_learns(tiny_backbone: Backbone, other: str | None) -> None:
    add_adapters(tiny_backbone, "one", "two")
    with tiny_backbone.adapter("one"):
        for key, weight in tiny_backbone.model.named_parameters():
            weight.requires_grad_(".one." in key)
        before = {key for key, weight in tiny_backbone.model.named_parameters() if weight.requires_grad}
        with tiny_backbone.adapter(other):
            pass
        after = {key for key, weight in tiny_backbone.model.named_parameters() if weight.requires_grad}
    assert before == after != set()


def test_an_adapter_that_is_not_there_is_refused(tiny_backbone: Backbone) -> None:
    with tiny_backbone.adapter(None):
        pass
    with pytest.raises(ModelError, match="nobody"), tiny_backbone.adapter("nobody"):
        pass
    add_adapters(tiny_backbone, "one")
    with pytest.raises(ModelError, match="nobody"), tiny_backbone.adapter("nobody"):
        pass


@torch.no_grad()
def test_a_shift_is_added_to_the_states_of_its_layer() -> None:
    backbone = make_tiny_backbone()
    ids = torch.tensor([[5, 6, 7]])
    vectors = torch.randn(3, backbone.d, generator=torch.Generator().manual_seed(0))
    plain = backbone.model(ids, output_hidden_states=True).hidden_states
    with backbone.steering(1, vectors), backbone.reading(1) as caught:
        shifted = backbone.model(ids).logits
    torch.testing.assert_close(caught[0], plain[1] + vectors)
    # What layer 2 then makes of it, by hand; behind the block all is as before.
    positions = torch.arange(3)[None]
    rotary = backbone.trunk.rotary_emb(plain[1], position_ids=positions)
    after = backbone.trunk.layers[1](plain[1] + vectors, position_embeddings=rotary, position_ids=positions)
    expected = backbone.head(backbone.trunk.norm(after[0] if isinstance(after, tuple) else after))
    torch.testing.assert_close(shifted, expected)
    assert torch.equal(backbone.model(ids, output_hidden_states=True).hidden_states[2], plain[2])
