"""What a card is given to do, by us and by others: decoding, rollouts, features, cloning, on one model in memory.

Owns the contenders of `benchmarks.gpu`. Knows nothing of budgets, files and goals.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, StaticCache
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from benchmarks import inputs
from benchmarks.arena import Options
from pamdp.env.dialogue import DialogueEnv
from pamdp.env.user import RecordedUser
from pamdp.models.backbone import Backbone, Readout
from pamdp.models.chat import Encoded
from pamdp.models.generate import DecodeRow, Entry, Sampling, Writing
from pamdp.models.policy import Policy, path
from pamdp.rollout import collect
from pamdp.types import Dialogue

T = TypeVar("T")
Facts = dict[str, object]


@dataclass(frozen=True, slots=True)
class Work:
    """One model and how much it is given.

    Attributes:
      sizes: users, turns, tokens and batch of rollouts.
      width: columns of the decode step that is timed alone.
      cloned, turns: dialogues of a cloning pass, and turns of each.
      step: dialogues to an optimizer step of ours, samples to one of a peer's.
      rate: operations a second of a large product, of which shares are given.
    """

    backbone: Backbone
    sizes: Options
    width: int
    cloned: int
    turns: int
    step: int
    rate: float

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.backbone.device

    @property
    def sampling(self) -> Sampling:
        """Greedy, as peers can do it too."""
        return Sampling(self.sizes.tokens, repetition_penalty=1.0)

    @property
    def parameters(self) -> int:
        """Weights of linear layers, which nearly all operations are for."""
        return sum(m.weight.numel() for m in self.backbone.model.modules() if isinstance(m, torch.nn.Linear))

    def timed(self, work: Callable[[], T]) -> tuple[float, T]:
        """Seconds of WORK, and what it gives."""
        wait(self.device)
        start = time.perf_counter()
        found = work()
        wait(self.device)
        return time.perf_counter() - start, found

    def histories(self) -> list[tuple[Encoded, int]]:
        """Every dialogue's whole history, and the tokens before its first reply."""
        chosen = inputs.dialogues(self.sizes)
        encoded = [self.backbone.chat.history(path(d), Policy(self.backbone).system) for d in chosen]
        return [(e, e.heads[0]) for e in encoded]


def random_model(
    tokenizer: PreTrainedTokenizerFast, device: torch.device, dtype: torch.dtype, **shape: object
) -> Backbone:
    """A Qwen2 of random weights, made where it is used; it never writes a token that the tokenizer lacks."""
    end = tokenizer.eos_token_id
    config = Qwen2Config(**{"vocab_size": len(tokenizer), "eos_token_id": end, "pad_token_id": end, **shape})
    config.bos_token_id = None
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config)
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        model.get_output_embeddings().weight[len(tokenizer) :] = 0
    return Backbone(model.to(dtype).eval(), tokenizer, "random")


def wait(device: torch.device) -> None:
    """Until a device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize()


@contextmanager
def plain(backbone: Backbone) -> Iterator[None]:
    """Attention as transformers has it, for peers."""
    own = backbone.model.config._attn_implementation
    backbone.model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        backbone.model.set_attn_implementation(own)


@torch.no_grad()
def bare_step(work: Work) -> Facts:
    """A decode step over a static cache and nothing else: as it comes, and where there is CUDA as a replayed graph."""
    model, batch, width = work.backbone.model, work.sizes.batch, work.width
    cache = StaticCache(config=model.config, max_cache_len=width)
    with plain(work.backbone):
        model(torch.full((batch, 8), 5, device=work.device), past_key_values=cache, use_cache=True)
        given = {
            "input_ids": torch.full((batch, 1), 7, device=work.device),
            "position_ids": torch.full((batch, 1), width // 2, device=work.device),
            "attention_mask": torch.zeros(batch, 1, 1, width, device=work.device, dtype=work.backbone.dtype),
        }

        def step() -> Tensor:
            return torch.as_tensor(model(**given, past_key_values=cache, use_cache=True).logits)

        step()
        seconds, _ = work.timed(lambda: [step() for _ in range(5)])
        facts: Facts = {"batch": batch, "width": width, "eager_ms": 200 * seconds, "tokens/s": batch / (seconds / 5)}
        if work.device.type == "cuda":
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                step()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            graph.replay()

            def replay() -> None:
                for _ in range(20):
                    graph.replay()

            seconds, _ = work.timed(replay)
            facts |= {"graph_ms": 50 * seconds, "tokens/s": batch / (seconds / 20)}
    return facts


@torch.no_grad()
def our_steps(work: Work) -> Facts:
    """Our decode step at the same batch and width, with draws, ends and looks at them."""
    tokens, batch = work.sizes.tokens, work.sizes.batch
    ids = [5] * (work.width - 2 * tokens - 2)
    prefix = work.backbone.prefix(Encoded(tuple(ids), (len(ids),), ((0, len(ids)),)))
    writing = Writing(work.backbone, prefix, batch, len(ids), 2 * tokens)
    row = DecodeRow(0, len(ids))
    writing.join([Entry(i, prefix, row, Sampling(2 * tokens, repetition_penalty=1.0)) for i in range(batch)])

    def write() -> int:
        before = writing.clock
        while writing.clock < before + tokens - writing.passes:
            writing.go_on()
            writing.slots.going.tolist()
        return writing.clock - before

    writing.go_on()
    writing.go_on()  # a size is recorded when it comes again
    seconds, steps = work.timed(write)
    return {"batch": batch, "width": work.width, "ms": 1000 * seconds / steps, "tokens/s": batch * steps / seconds}


def our_rollouts(work: Work) -> Facts:
    """`rollout.collect` on recorded users: H(h) and a reply for every state."""
    chosen, backbone = inputs.dialogues(work.sizes), work.backbone
    policy = Policy(backbone, readout=Readout(layer=backbone.layer_at(0.6)))

    def write(dialogues: Sequence[Dialogue]) -> int:
        written = 0
        for start in range(0, len(dialogues), work.sizes.batch):
            env = DialogueEnv([RecordedUser(d) for d in dialogues[start : start + work.sizes.batch]])
            written += len(collect(policy, env, work.sampling, explore=False, batch=work.sizes.batch).transitions)
        return written

    write(chosen[: work.sizes.batch])
    return _rollouts(work, *work.timed(lambda: write(chosen)))


@torch.no_grad()
def generate_rollouts(work: Work) -> Facts:
    """`generate` of transformers on padded batches, each turn from scratch; it gives no H(h)."""
    batches = [turn[i : i + work.sizes.batch] for turn in _turns(work) for i in range(0, len(turn), work.sizes.batch)]
    with plain(work.backbone):
        padded(work, batches[0])
        seconds, _ = work.timed(lambda: [padded(work, some) for some in batches])
    return _rollouts(work, seconds, sum(map(len, batches)))


@torch.no_grad()
def continuous_rollouts(work: Work) -> Facts:
    """`generate_batch` of transformers, which batches continuously over a paged cache."""
    if work.device.type == "cpu":
        raise RuntimeError("its paged cache is made for GPUs")
    states, end = [list(ids) for turn in _turns(work) for ids in turn], work.backbone.chat.end
    how = GenerationConfig(max_new_tokens=work.sizes.tokens, do_sample=False, eos_token_id=end, pad_token_id=end)
    model, graphs = work.backbone.model, ContinuousBatchingConfig(use_cuda_graph=True)

    def write() -> dict[str, object]:
        # Its cache and graphs stay from one call to the next, as ours do.
        found: dict[str, object] = model.generate_batch(
            inputs=states, generation_config=how, continuous_batching_config=graphs, persistent_manager=True
        )
        return found

    with plain(work.backbone):
        try:
            write()
            seconds, found = work.timed(write)
        finally:
            model.destroy_cached_continuous_batching_manager()
    return _rollouts(work, seconds, len(found))


def vllm_rollouts(work: Work) -> Facts:
    """vLLM, with random weights of the same shape."""
    vllm = import_module("vllm")
    folder = Path(tempfile.mkdtemp(prefix="pamdp-benchmark"))
    work.backbone.model.config.save_pretrained(folder)
    work.backbone.tokenizer.save_pretrained(folder)
    longest = max(len(ids) for turn in _turns(work) for ids in turn) + work.sizes.tokens
    llm = vllm.LLM(
        str(folder), load_format="dummy", dtype=str(work.backbone.dtype).removeprefix("torch."),
        gpu_memory_utilization=0.45, max_model_len=longest, max_num_seqs=work.sizes.batch,
    )  # fmt: skip
    prompts = [{"prompt_token_ids": list(ids)} for turn in _turns(work) for ids in turn]
    how = vllm.SamplingParams(temperature=0, max_tokens=work.sizes.tokens, ignore_eos=True)
    llm.generate(prompts[: work.sizes.batch], how)
    seconds, found = work.timed(lambda: llm.generate(prompts, how))
    return _rollouts(work, seconds, len(found))


@torch.no_grad()
def features(work: Work) -> Facts:
    """H(h) of whole dialogues, as it is stored."""
    policy = Policy(work.backbone, readout=Readout(layer=work.backbone.layer_at(0.6)))
    paths = [path(d) for d in inputs.dialogues(work.sizes)]
    tokens = sum(len(encoded.ids) for encoded, _ in work.histories())

    def read() -> Tensor:
        return torch.stack([policy.features(prefix) for prefix in policy.prefixes(paths)]).cpu()

    read()
    seconds, _ = work.timed(read)
    share = 2 * work.parameters * tokens / seconds / work.rate
    return {"histories/s": len(paths) / seconds, "tokens/s": tokens / seconds, "share": share}


def _turns(work: Work) -> list[list[Sequence[int]]]:
    """Histories before each turn's reply, turn by turn."""
    encoded = [encoded for encoded, _ in work.histories()]
    return [[e.ids[: e.heads[t]] for e in encoded if t < len(e.heads)] for t in range(work.sizes.turns)]


def padded(work: Work, histories: Sequence[Sequence[int]]) -> list[list[int]]:
    """Replies of `generate` to histories that are padded on the left."""
    width, end = max(map(len, histories)), work.backbone.chat.end
    ids = torch.tensor([[end] * (width - len(h)) + list(h) for h in histories], device=work.device)
    mask = torch.tensor([[0] * (width - len(h)) + [1] * len(h) for h in histories], device=work.device)
    out = work.backbone.model.generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=work.sizes.tokens, repetition_penalty=1.0,
        eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    written = out[:, width:].tolist()
    return [row[: row.index(end)] if end in row else row for row in written]


def _rollouts(work: Work, seconds: float, states: int) -> Facts:
    """Replies are counted at their longest: all contenders write the same ones."""
    return {"states": states, "seconds": seconds, "tokens/s": states * work.sizes.tokens / seconds}
