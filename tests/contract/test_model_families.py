"""Every family of models is computed as transformers computes it: replies, likelihoods, gradients, states, adapters.

What is expected comes from whole passes of the plain model or from its own `generate`, with the masks and the cache
that transformers makes. Windows are shorter than the histories.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import _maybe_include_all_linear_layers
from torch import Tensor

from pamdp.config import CloneConfig, Config, ModelConfig, RLConfig
from pamdp.data import load_sample
from pamdp.errors import ModelError
from pamdp.fingerprint import Fingerprint
from pamdp.judges.likelihood import RatioScorer
from pamdp.models import alike
from pamdp.models import generate as generation
from pamdp.models.actor import Planner
from pamdp.models.adapters import adapter_tensors, add_adapter, linear_names, load_adapter, train_backbone
from pamdp.models.alike import require_alike
from pamdp.models.backbone import Backbone
from pamdp.models.families import sees_all
from pamdp.models.generate import DecodeRow, Sampling, generate
from pamdp.models.packed_branches import Branch, branch_log_probs, packed_log_probs
from pamdp.models.packed_contexts import Group, pack, run_layers
from pamdp.models.prefill import prefill
from pamdp.models.prefix import Prefix
from pamdp.prompts.render import load, render
from pamdp.runs import Run
from pamdp.train.clone import clone
from pamdp.train.factory import new_policy
from pamdp.train.offline import offline
from pamdp.types import Dialogue, Persona
from tests.tools.chats import ECHO, NURSE, SYSTEM
from tests.tools.families import COMMON, FAMILIES, REFUSED, WINDOW, make_family, make_model
from tests.tools.methods import VowelJudge
from tests.tools.recording import RecordedLaunch
from tests.tools.tiny import make_tiny_tokenizer

GREEDY = Sampling(8, repetition_penalty=1.0)
SLOW = Sampling(20, repetition_penalty=1.0)
REPLIES = ("Tea it is.", "A long answer about soup, bread and nights, with émincé 🙂.", "ok")
CLOSE = dict(rtol=1e-5, atol=1e-5)  # some models take a softmax in float32


@cache
def _family(name: str) -> Backbone:
    return make_family(name)


@pytest.fixture(params=sorted(FAMILIES))
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """A backbone that tests leave as it was."""
    return _family(request.param)


@pytest.fixture(params=sorted(FAMILIES))
def own(request: pytest.FixtureRequest) -> Backbone:
    """A backbone of one's own."""
    return make_family(request.param)


def plain_logits(backbone: Backbone, ids: Sequence[int], inject: Tensor | None, reply: Sequence[int]) -> Tensor:
    """Logits of a whole pass of the plain model over history, action and reply, [n, vocabulary]."""
    blank = [] if inject is None else [0] * len(inject)
    parts = [backbone.embed_ids(ids), *([] if inject is None else [inject]), backbone.embed_ids(reply)]
    given: dict[str, Tensor] = {"inputs_embeds": torch.cat(parts)[None]}
    if "gemma4" in backbone.name:  # its layers see which token it is; an action counts as padding
        given["per_layer_inputs"] = backbone.trunk.get_per_layer_inputs(torch.tensor([[*ids, *blank, *reply]]))
    return torch.as_tensor(backbone.model(**given, use_cache=False).logits[0])


def plain_log_probs(backbone: Backbone, ids: Sequence[int], inject: Tensor | None, reply: Sequence[int]) -> Tensor:
    """log p of each reply token, [len(reply)]."""
    table = plain_logits(backbone, ids, inject, reply)[-len(reply) - 1 : -1].log_softmax(-1)
    return table.gather(1, torch.tensor(reply)[:, None])[:, 0]


def test_the_families_are_those_that_need_no_try() -> None:
    assert set(FAMILIES) == alike.CHECKED
    windows = {name for name, settings in FAMILIES.items() if "sliding_window" in settings}
    assert len(FAMILIES) >= 16 and len(windows) >= 8
    assert len(_family("mistral").chat.history(NURSE[:1], SYSTEM).ids) > WINDOW


@torch.no_grad()
def test_greedy_replies_of_three_turns_are_those_of_generate(backbone: Backbone) -> None:
    before: list[Prefix | None] = [None, None]
    for turn in range(3):
        histories = [backbone.chat.history(chat[: 2 * turn + 1], SYSTEM) for chat in (NURSE, ECHO)]
        prefixes = prefill(backbone, histories, before=before)
        rows = [DecodeRow(i, head) for i, encoded in enumerate(histories) for head in encoded.heads]
        written = generate(backbone, prefixes, rows, GREEDY, batch=3)
        for row, reply in zip(rows, written, strict=True):
            ids = torch.tensor([histories[row.prefix].ids[: row.length]])
            whole = backbone.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=GREEDY.max_tokens, do_sample=False,
                repetition_penalty=1.0, eos_token_id=list(backbone.chat.ends), pad_token_id=0,
            )[0, ids.shape[1] :].tolist()  # fmt: skip
            assert reply == [token for token in whole if token not in backbone.chat.ends]
        before = list(prefixes)


@torch.no_grad()
def test_a_recorded_step_writes_the_same(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Families whose pass asks the device (experts that are looked up) go on step by step, in the same sizes."""
    prefixes = prefill(backbone, [backbone.chat.history(chat, SYSTEM) for chat in (NURSE, ECHO)])
    actions = torch.randn(2, 1, backbone.d, generator=torch.Generator().manual_seed(1), dtype=backbone.dtype)
    rows = [DecodeRow(i, p.encoded.heads[1], action) for i, p in enumerate(prefixes) for action in (None, actions[i])]
    plain = generate(backbone, prefixes, rows, SLOW)
    monkeypatch.setattr(generation, "launch_for", lambda _device: RecordedLaunch())
    assert generate(backbone, prefixes, rows, SLOW) == plain


@torch.no_grad()
def test_replies_under_actions_are_those_of_whole_passes(backbone: Backbone) -> None:
    histories = [backbone.chat.history(chat, SYSTEM) for chat in (NURSE, ECHO)]
    actions = torch.randn(2, 2, backbone.d, generator=torch.Generator().manual_seed(1), dtype=backbone.dtype)
    rows = [DecodeRow(i, encoded.heads[1], action) for i, (encoded, action) in enumerate(zip(histories, actions))]  # noqa: B905
    for row, reply in zip(rows, generate(backbone, prefill(backbone, histories), rows, GREEDY), strict=True):
        for k, token in enumerate(reply):
            ids = histories[row.prefix].ids[: row.length]
            assert int(plain_logits(backbone, ids, row.inject, reply[:k])[-1].argmax()) == token


@pytest.mark.parametrize("what", ["lora", "full"])
def test_cloning_loss_and_gradients_are_those_of_one_sequence_a_turn(own: Backbone, what: str) -> None:
    add_adapter(own, "clone", 2)
    train_backbone(own, "lora" if what == "lora" else "full", "clone")
    generator = torch.Generator().manual_seed(1)
    for name, weight in own.model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.1, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        planner = Planner(own.d * 2, own.d, d_a=8, n=1).to(own.dtype)
    weights = [w for w in (*own.model.parameters(), *planner.parameters()) if w.requires_grad]
    replies = [own.chat.reply(text) for text in REPLIES]
    chats = [(NURSE, replies), (ECHO, replies[:2])]  # two dialogues, in one pass where the family can

    def action(prefix: Prefix, t: int) -> Tensor | None:
        return planner.injector(planner.actor(prefix.read(t, ("users", "user")))) if t else None

    with own.adapter("clone" if what == "lora" else None):
        prefixes = prefill(own, [own.chat.history(chat, SYSTEM) for chat, _ in chats])
        branches = [
            [Branch(prefix.encoded.heads[t], reply, action(prefix, t)) for t, reply in enumerate(said)]
            for prefix, (_, said) in zip(prefixes, chats, strict=True)
        ]
        packed = torch.cat([scores for found in packed_log_probs(own, prefixes, branches) for scores in found])
        scale = torch.linspace(0.5, 2.0, len(packed), dtype=own.dtype)  # so that no two errors cancel
        mine = torch.autograd.grad((packed * scale).sum(), weights, allow_unused=True)
        plain = []
        for chat, said in chats:
            for t, reply in enumerate(said):
                alone = own.chat.history(chat[: 2 * t + 1], SYSTEM)
                plain.append(plain_log_probs(own, alone.ids, action(own.prefix(alone), t), reply))
        theirs = torch.autograd.grad((torch.cat(plain) * scale).sum(), weights, allow_unused=True)
    torch.testing.assert_close(packed.double(), torch.cat(plain), **CLOSE)
    found = [(a, b) for a, b in zip(mine, theirs, strict=True) if b is not None and float(b.norm()) > 1e-9]
    assert len(found) > len(weights) // 4
    for a, b in found:
        assert a is not None and float((a - b).norm()) <= 1e-4 * float(b.norm()) + 1e-8


@torch.no_grad()
def test_a_steered_reply_is_scored_beside_others_as_alone(backbone: Backbone) -> None:
    """The header's last token runs again, shifted: the layers know which token it is."""
    encoded, ids = backbone.chat.history(NURSE, SYSTEM), backbone.chat.reply(REPLIES[1])
    steer = torch.randn(backbone.d, generator=torch.Generator().manual_seed(2), dtype=backbone.dtype)
    length = encoded.heads[1] - 1
    header = encoded.ids[length : length + 1]
    steered = Branch(length, ids, backbone.embed_ids(header), None, steer, header)
    found = branch_log_probs(backbone, backbone.prefix(encoded), [Branch(encoded.heads[2], ids), steered], 2)[1]
    shift = torch.zeros(length + len(ids) + 1, backbone.d, dtype=backbone.dtype)
    shift[length:] = steer
    with backbone.steering(2, shift):
        expected = plain_log_probs(backbone, encoded.ids[: length + 1], None, ids)
    torch.testing.assert_close(found.double(), expected, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("layer", [-1, 0, 2])
def test_states_are_the_models_own(backbone: Backbone, layer: int) -> None:
    encoded = backbone.chat.history(NURSE, SYSTEM)
    plain = backbone.model(torch.tensor([encoded.ids]), output_hidden_states=True, use_cache=False)
    for prefix in (backbone.prefix(encoded, layer), *prefill(backbone, [encoded, encoded], layer)):
        torch.testing.assert_close(prefix.states, plain.hidden_states[layer][0], **CLOSE)
        torch.testing.assert_close(prefix.final, plain.hidden_states[-1][0], **CLOSE)
        torch.testing.assert_close(backbone.head(prefix.final), plain.logits[0], **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("cut", [0, 2])
def test_packed_contexts_are_scored_as_alone(backbone: Backbone, cut: int) -> None:
    groups = [
        Group(backbone.chat.history(chat[:1], SYSTEM).ids, [backbone.chat.reply(reply) for reply in REPLIES[:2]])
        for chat in (NURSE, ECHO)
    ]
    row = pack(groups, backbone.device)
    lower = run_layers(backbone, row, None, 0, cut) if cut else None
    states = run_layers(backbone, row, lower, cut, -1)
    logits = backbone.head(states)
    alone = [(group, reply) for group in groups for reply in group.replies]
    for (before, _), (group, reply) in zip(row.predicts, alone, strict=True):
        expected = plain_logits(backbone, group.context, None, reply)[-len(reply) - 1 : -1]
        torch.testing.assert_close(logits[before], expected, **CLOSE)


@torch.no_grad()
def test_the_likelihood_ratio_judges_beside_every_family(backbone: Backbone) -> None:
    person = Persona("A nurse who works nights and cooks soup.", "terse")
    known, anyone = (
        torch.stack([
            plain_log_probs(backbone, backbone.chat.history(NURSE[:1], system).ids, None, backbone.chat.reply(u)).sum()
            for u in REPLIES
        ])
        for system in (render("judge_for", persona=person.text), load("judge_anyone"))
    )  # fmt: skip
    found = torch.tensor(RatioScorer(backbone).score(person, NURSE[:1], REPLIES), dtype=torch.float64)
    rounding = 4 * torch.finfo(torch.float32).eps * float(known.abs().max())  # of two sums of many nats in float32
    torch.testing.assert_close(found, (known - anyone).double(), rtol=1e-5, atol=rounding)
    assert float(found.abs().max()) > 1e-3 or not sees_all(backbone.model)  # a window may be over before the person


@torch.no_grad()
def test_an_adapter_finds_all_linear_modules_and_goes_without_a_trace(own: Backbone) -> None:
    everything = _maybe_include_all_linear_layers(LoraConfig(target_modules="all-linear"), own.model).target_modules
    layers = {name for name in everything if ".layers." in name or ".h." in name}
    assert set(linear_names(own)) == layers and len(layers) >= 4 * len(own.layers)
    encoded = own.chat.history(NURSE, SYSTEM)
    bare = own.prefix(encoded).final
    for name, first in (("one", 0), ("two", 2)):
        add_adapter(own, name, 2, first)
        shape = adapter_tensors(own, name)
        assert len(shape) == 2 * len([n for n in layers if int(n.split(".")[2]) >= first])
        load_adapter(own, name, {key: torch.full_like(value, 0.02) for key, value in shape.items()})
    states = []
    for name in ("one", "two", None):
        with own.adapter(name):
            states.append(own.prefix(encoded).final)
    assert torch.equal(states[2], bare)
    assert not torch.allclose(states[0], bare) and not torch.allclose(states[1], states[0])
    own.delete_adapter("one")
    assert set(linear_names(own)) == layers


def test_cloning_and_a_round_of_reinforcement_end(own: Backbone, tmp_path: Path) -> None:
    own.model.float()
    dialogues = tuple(Dialogue(d.id, d.user_id, d.persona, d.turns[:2]) for d in load_sample("train").dialogues[:2])
    config = Config(
        model=ModelConfig(d_a=8, depth=0.5),
        clone=CloneConfig(epochs=1, batch_size=2),
        rl=RLConfig(rounds=1, samples=2, epochs=1, batch_size=4, actor_every=1, max_reply=4, dialogues=2),
    )
    about = Fingerprint(data="0", model=own.name, revision="0")
    with Run.create(tmp_path / "bc", config, about) as run:
        cloned = clone(new_policy(own, config), dialogues, (), config, run)
    with Run.create(tmp_path / "rl", config, about) as run:
        trained = offline(cloned, dialogues, VowelJudge(), config, run)
    assert all(torch.isfinite(weight).all() for weight in trained.trained_planner.state_dict().values())


@pytest.mark.parametrize("family", sorted(REFUSED))
def test_what_cannot_be_used_is_refused_in_one_line(family: str) -> None:
    settings, why = REFUSED[family]
    with pytest.raises(ModelError, match=why) as refusal:
        Backbone(make_model(family, settings), make_tiny_tokenizer())
    assert "\n" not in str(refusal.value) and family in str(refusal.value)


@torch.no_grad()
def test_the_language_model_within_one_that_also_sees_is_used() -> None:
    """Gemma 3 from 4B on: a language model and a tower for pictures, of as many layers, in one."""
    tower = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=8)
    whole = dict(
        text_config=FAMILIES["gemma3_text"] | {"model_type": "gemma3_text"},
        vision_config=tower | {"patch_size": 4, "model_type": "siglip_vision_model"}, mm_tokens_per_image=4,
        image_token_index=300, boi_token_index=301, eoi_token_index=302,
    )  # fmt: skip
    backbone = Backbone(make_model("gemma3", whole), make_tiny_tokenizer())
    encoded, reply = backbone.chat.history(NURSE, SYSTEM), backbone.chat.reply(REPLIES[1])
    prefix = backbone.prefix(encoded)
    found = branch_log_probs(backbone, prefix, [Branch(encoded.heads[t], reply) for t in (1, 2)])
    for t, mine in zip((1, 2), found, strict=True):
        plain = plain_log_probs(backbone, encoded.ids[: encoded.heads[t]], None, reply)
        torch.testing.assert_close(mine.double(), plain, **CLOSE)
    assert not any("vision" in name for name in linear_names(backbone))


@torch.no_grad()
def test_layers_that_share_keys_are_run_whole_or_not_at_all() -> None:
    shared = FAMILIES["gemma4_text"] | {
        "num_hidden_layers": 6, "num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 3
    }  # fmt: skip
    backbone = Backbone(make_model("gemma4_text", shared), make_tiny_tokenizer(), name="gemma4")
    encoded, reply = backbone.chat.history(NURSE, SYSTEM), backbone.chat.reply(REPLIES[1])
    prefix = backbone.prefix(encoded)
    [found] = branch_log_probs(backbone, prefix, [Branch(encoded.heads[1], reply)])
    plain = plain_log_probs(backbone, encoded.ids[: encoded.heads[1]], None, reply)
    torch.testing.assert_close(found.double(), plain, **CLOSE)
    row = [DecodeRow(0, encoded.heads[1]), DecodeRow(0, encoded.heads[0])]
    for one, written in zip(row, generate(backbone, [prefix], row, GREEDY), strict=True):
        for k, token in enumerate(written):
            ids = encoded.ids[: one.length]
            assert int(plain_logits(backbone, ids, None, written[:k])[-1].argmax()) == token
    packed = pack([Group(encoded.ids, [reply])], backbone.device)
    with pytest.raises(ModelError, match="share keys"):
        run_layers(backbone, packed, run_layers(backbone, packed, None, 0, 2), 2, 6)


def test_no_text_is_longer_than_positions_that_mean_the_same_beside_shorter_ones() -> None:
    """Phi-3 of 128k: beyond its first 4k tokens it turns the positions of all tokens otherwise."""
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 64, "rope_theta": 10000.0,
            "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}  # fmt: skip
    settings = COMMON | {"rope_parameters": rope, "original_max_position_embeddings": 64}
    backbone = Backbone(make_model("phi3", settings), make_tiny_tokenizer())
    assert backbone.positions == 64 and _family("phi3").positions == 8192
    encoded = [backbone.chat.history(chat, "") for chat in (NURSE, ECHO[:1])]
    for run in (lambda: backbone.prefix(encoded[0]), lambda: prefill(backbone, encoded)):
        with pytest.raises(ModelError, match="beyond 64"):
            run()
    prefix = backbone.prefix(encoded[1])
    length = len(encoded[1].ids)
    with pytest.raises(ModelError, match="beyond 64"):
        branch_log_probs(backbone, prefix, [Branch(length, [5] * 64)])
    with pytest.raises(ModelError, match="beyond 64"):
        generate(backbone, [prefix], [DecodeRow(0, length)], Sampling(64))


def test_a_family_that_no_test_knows_is_tried() -> None:
    require_alike(Backbone(make_model("olmo", COMMON), make_tiny_tokenizer()))
    bloom = dict(vocab_size=320, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    with pytest.raises(ModelError, match="not scored as alone"):
        require_alike(Backbone(make_model("bloom", bloom), make_tiny_tokenizer()))
