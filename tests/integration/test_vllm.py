"""Replies by vLLM are those of `generate`, whatever enters them, and what it keeps of a shifted one serves no other.

vLLM is in no list of what tests install (docs/vllm.md says how to have it); without it these tests skip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pamdp.config import CloneConfig, Config, EngineConfig
from pamdp.env.dialogue import DialogueEnv
from pamdp.env.user import RecordedUser
from pamdp.errors import ModelError
from pamdp.models.actor import Planner
from pamdp.models.adapters import Adapter, adapter_tensors, load_adapter
from pamdp.models.backbone import Backbone, Readout
from pamdp.models.chat import Encoded
from pamdp.models.embedded import load_backbone
from pamdp.models.generate import DecodeRow, Sampling, generate
from pamdp.models.policy import Policy, Request
from pamdp.rollout import collect
from pamdp.types import Dialogue, Message, Persona, Turn
from tests.tools.tiny import make_tiny_tokenizer
from tests.tools.writers import check_writer

pytest.importorskip("vllm", reason="vLLM is not installed (docs/vllm.md)")

from pamdp.engines.vllm import VllmWriter, require_engine, use_engine

LAYER = 2
GREEDY = Sampling(24, repetition_penalty=1.0)
SAID = "I am a nurse in a small town and I work nights. What should I cook when I come home? Nothing fancy, thanks."


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """A random Llama on disk, with an adapter and a planner whose actions are embeddings and a shift."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tiny_tokenizer()
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, initializer_range=0.3, pad_token_id=0, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(shape).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        config = Config(engine=EngineConfig(kind="vllm", cache_gb=0.1), clone=CloneConfig(lora_rank=4))
        config = config.model_copy(update={"model": config.model.model_copy(update={"name": str(folder)})})
        backbone = load_backbone(str(folder))
        adapter = Adapter(backbone, 4)
        change(backbone, adapter)
        planner = Planner(64, 64, d_a=8, n=3, steers=True)
        assert planner.steering is not None
        planner.steering.normal_(std=2.0)
        assert planner.injector is not None
        torch.nn.init.normal_(planner.injector.a2.weight)
    require_engine(config)
    return Policy(use_engine(backbone, config), planner, adapter, Readout(("user",), LAYER), config=config)


def change(backbone: Backbone, adapter: Adapter) -> None:
    """Give an adapter other random weights."""
    tensors = adapter_tensors(backbone, adapter.name)
    load_adapter(backbone, adapter.name, {key: torch.randn_like(x) / 4 for key, x in tensors.items()})


@pytest.fixture
def cached(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many tokens of each request vLLM had in its memory; that is empty at first."""
    writer = policy.backbone.writer
    assert isinstance(writer, VllmWriter)
    written(policy, rows(policy, 1, "plain"))  # so that it runs
    llm, found = writer._llm, list[int]()
    assert llm is not None
    write = llm.generate
    reset(policy)

    def spied(*given: object, **how: object) -> object:
        out = write(*given, **how)
        found.extend(one.num_cached_tokens or 0 for one in out)
        return out

    monkeypatch.setattr(llm, "generate", spied)
    yield found


def reset(policy: Policy) -> None:
    """Have vLLM forget all keys and values."""
    writer = policy.backbone.writer
    assert isinstance(writer, VllmWriter) and writer._llm is not None
    assert writer._llm.reset_prefix_cache()


HISTORY = tuple(Message("assistant" if i % 2 else "user", f"{i}. {SAID}") for i in range(5))
"""Three turns of some 100 tokens each."""


def rows(policy: Policy, n: int, kind: str) -> list[DecodeRow]:
    """N replies to every turn of a dialogue of three, each under a random action of KIND."""
    prefix, generator = policy.prefix(HISTORY), torch.Generator().manual_seed(3)
    out = list[DecodeRow]()
    for t in range(3):
        for _ in range(n):
            row = policy.row(prefix, Request(0, t, torch.randn(8, generator=generator), len(out)))
            row = row if "embeddings" in kind else replace(row, inject=None)
            out.append(row if "shift" in kind else replace(row, steer=None))
    return out


@torch.no_grad()
def written(policy: Policy, asked: list[DecodeRow], sampling: Sampling = GREEDY) -> list[list[int]]:
    """What vLLM writes, which must be what `generate` does."""
    backbone = policy.backbone
    assert backbone.writer is not None
    prefixes = [policy.prefix(HISTORY)]
    with policy.active():
        ours = generate(backbone, prefixes, asked, sampling, layer=LAYER)
        assert backbone.writer(backbone, prefixes, asked, sampling, layer=LAYER) == ours
    return ours


@pytest.mark.parametrize("kind", ["plain", "shift", "embeddings", "embeddings and shift"])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(24, 0.8, 0.9, 1.3)], ids=["greedy", "drawn"])
def test_replies_are_those_of_generate(policy: Policy, kind: str, sampling: Sampling) -> None:
    replies = written(policy, rows(policy, 3, kind), sampling)
    # Three turns; three replies to each differ where an action or the draw does.
    assert len({tuple(reply) for reply in replies}) == (3 if kind == "plain" and not sampling.temperature else 9)


def test_vllm_keeps_the_contract_of_writers(policy: Policy) -> None:
    asked = [*rows(policy, 1, "embeddings and shift"), *rows(policy, 1, "shift"), *rows(policy, 1, "plain")]
    backbone = policy.backbone
    assert backbone.writer is not None
    with torch.no_grad(), policy.active():
        check_writer(backbone.writer, backbone, [policy.prefix(HISTORY)], asked, LAYER)


def test_bare_model_and_adapters_that_learn_do_not_mix(policy: Policy) -> None:
    asked = rows(policy, 1, "shift")
    before = written(policy, asked)
    assert written(replace(policy, adapter=None), asked) != before
    assert policy.adapter is not None
    old = adapter_tensors(policy.backbone, policy.adapter.name)
    change(policy.backbone, policy.adapter)
    assert written(policy, asked) != before
    load_adapter(policy.backbone, policy.adapter.name, old)
    assert written(policy, asked) == before


def test_what_was_written_under_a_shift_is_found_under_that_shift_only(policy: Policy, cached: list[int]) -> None:
    long = Sampling(200, repetition_penalty=1.0)  # blocks of 128 tokens are kept, once they are full
    shifted = next(row for row in rows(policy, 12, "shift")[-12:] if len(written(policy, [row], long)[0]) == 200)
    cached.clear()
    reset(policy)
    other = replace(shifted, steer=-2 * shifted.steer)
    clean = replace(shifted, steer=torch.zeros_like(shifted.steer))
    first, *_ = written(policy, [shifted], long)
    assert written(policy, [other], long) != [first] != written(policy, [clean], long)
    assert written(policy, [shifted], long) == [first]
    assert cached[0] == 0
    assert min(cached[1:]) > 0, "the history is shared by all"
    # A later turn's history holds the reply, which then stands under no shift.
    ids = (*policy.encode(HISTORY).ids[: shifted.length], *first)
    asked = [replace(row, prefix=0, length=len(ids)) for row in (shifted, clean)]
    with torch.no_grad(), policy.active():
        later = policy.backbone.prefix(Encoded(ids, (len(ids),), ()))
        ours = generate(policy.backbone, [later], asked, GREEDY, layer=LAYER)
        assert policy.backbone.writer is not None
        assert policy.backbone.writer(policy.backbone, [later], asked, GREEDY, layer=LAYER) == ours


def test_rollouts_are_the_same_under_both_engines(policy: Policy) -> None:
    dialogues = [
        Dialogue(f"d{i}", f"u{i}", Persona(), tuple(Turn(f"{SAID} {i}.{t}", "Soup.") for t in range(2)))
        for i in range(2)
    ]
    found = []
    for writer in (policy.backbone.writer, None):
        twin = replace(policy)
        kept, twin.backbone.writer = twin.backbone.writer, writer
        try:
            rollout = collect(twin, DialogueEnv([RecordedUser(d) for d in dialogues]), Sampling(16, 0.7), samples=2)
        finally:
            twin.backbone.writer = kept
        found.append([(t.key, t.t, t.k, t.reply) for t in rollout.transitions])
    assert found[0] == found[1] and len(found[0]) == 8


def test_what_cannot_be_written_is_said_in_a_line(policy: Policy) -> None:
    backbone, prefix = policy.backbone, policy.prefix(HISTORY)
    assert backbone.writer is not None
    with pytest.raises(ModelError, match=r"may have 2.* tokens, and vLLM has room for 1024"):
        backbone.writer(backbone, [prefix], [DecodeRow(0, prefix.encoded.heads[0])], Sampling(2000))
    with pytest.raises(ModelError, match="layer -1 cannot be shifted"):
        backbone.writer(backbone, [prefix], [DecodeRow(0, 5, steer=torch.ones(64))], GREEDY)


def test_settings_are_refused_before_anything_is_loaded(policy: Policy, tmp_path: Path) -> None:
    model = policy.config.model.model_copy(update={"name": str(tmp_path)})
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ModelError, match="not with gpt2"):
        require_engine(policy.config.model_copy(update={"model": model}))
