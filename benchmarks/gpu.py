"""Everything on one card of 80 GB, in at most eight minutes: `python -m benchmarks.gpu --out FOLDER`.

Random weights in the shape of Qwen2.5-7B in bfloat16, so that nothing is downloaded, and the embedded model. Every part
is caught on its own, has a budget, and is written to FOLDER/gpu.json as soon as it ends; ratios compare parts of one
run. Without CUDA, or with --rehearse, a tiny shape runs on the CPU in the sizes of a GPU: that says whether it works,
and nothing of speed.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from transformers import AutoTokenizer

from benchmarks import gpu_cloning as learn
from benchmarks import gpu_work as gpu
from benchmarks.arena import Options
from benchmarks.gpu_replies import same_replies
from benchmarks.measure import machine
from pamdp.models import generate
from pamdp.models.backbone import Backbone
from pamdp.models.embedded import EMBEDDED, load_backbone, model_path
from pamdp.models.launch import FixedLaunch

LIMIT = 460.0
"""Seconds for all; a part that has no time left is skipped."""
QWEN = dict(
    vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
    num_key_value_heads=4, tie_word_embeddings=False, max_position_embeddings=32768,
)  # fmt: skip
TINY = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
Facts = Mapping[str, object]
Contender = Callable[[gpu.Work], Facts]


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of two parts' figures, or one part's share, and what it is to reach."""

    ours: str
    peer: str | None
    figure: str
    target: float | None = None


SEVEN = [
    Goal("7B decode, ours", "7B decode, bare", "tokens/s", 0.6),
    Goal("7B rollouts, ours", "7B rollouts, generate", "tokens/s", 2.0),
    Goal("7B rollouts, ours", "7B rollouts, generate_batch", "tokens/s", 4.0),
    Goal("7B rollouts, ours", "7B rollouts, vLLM", "tokens/s"),
    Goal("7B LoRA, ours", "7B LoRA, peft", "dialogues/s", 2.0),
    Goal("7B LoRA, ours", "7B LoRA, TRL", "dialogues/s"),
    Goal("7B LoRA, ours", None, "share", 0.35),
    Goal("7B features, ours", None, "share"),
]
SMALL = [
    Goal("embedded rollouts, ours", "embedded rollouts, generate", "tokens/s", 4.0),
    Goal("embedded LoRA, ours", "embedded LoRA, peft", "dialogues/s", 2.0),
]


@dataclass(slots=True)
class Parts:
    """Runs parts one after another and keeps what came of each."""

    folder: Path
    device: torch.device
    limit: float
    started: float = field(default_factory=time.monotonic)
    found: dict[str, Facts] = field(default_factory=dict)

    def run(self, name: str, budget: float, work: Callable[[], Facts]) -> None:
        """Run a part, for no longer than BUDGET seconds; what fails is noted, and costs nothing but itself."""
        budget = min(budget, self.limit - (time.monotonic() - self.started))
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        start = time.monotonic()
        try:
            with _at_most(budget):
                facts = dict(work())
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            facts = {
                "failed": f"{type(error).__name__}: {error}"[:300],
                "at": f"{Path(where.filename).name}:{where.lineno}",
            }
        if self.device.type == "cuda":
            facts["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        facts["part_s"] = time.monotonic() - start
        self.found[name] = facts
        print(f"{name}: {json.dumps(_rounded(facts))}", flush=True)
        self.write()

    def write(self) -> None:
        """All that is known by now."""
        card = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "none: a rehearsal"
        ratios = [{"ours": g.ours, "peer": g.peer, "target": g.target, "ratio": r} for g, r in ratios_of(self.found)]
        result = {"card": card, "machine": machine(), "parts": self.found, "ratios": ratios}
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "gpu.json").write_text(json.dumps(_rounded(result), indent=1) + "\n", encoding="utf-8")


def ratios_of(found: Mapping[str, Facts]) -> list[tuple[Goal, float]]:
    """What can be said of each goal."""
    out = []
    for goal in (*SEVEN, *SMALL):
        ours = found.get(goal.ours, {}).get(goal.figure)
        theirs = 1.0 if goal.peer is None else found.get(goal.peer, {}).get(goal.figure)
        if isinstance(ours, float) and isinstance(theirs, float):
            out.append((goal, ours / theirs))
    return out


def table(found: Mapping[str, Facts]) -> str:
    """Ratios and goals as Markdown."""
    rows = [
        f"| {g.ours} | {g.peer or f'{g.figure} of the bf16 rate'} | {ratio:.3g} | {g.target or ''} |"
        for g, ratio in ratios_of(found)
    ]
    return "\n".join(["| ours | peer | ratio | goal |", "|---|---|---|---|", *rows])


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Stop what is inside the block after so many seconds, between two operations."""
    if seconds <= 1:
        raise TimeoutError("no time is left")

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def ceilings(device: torch.device, size: int) -> dict[str, object]:
    """What the device gives at most: operations of a bf16 product, and bytes copied, a second."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    x = torch.empty(size * size * 16, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    works: list[tuple[Callable[[], object], int]] = [(lambda: a @ b, 2 * size**3), (lambda: y.copy_(x), 2 * x.numel())]
    rates = []
    for work, amount in works:
        work()
        gpu.wait(device)
        start = time.perf_counter()
        for _ in range(10):
            work()
        gpu.wait(device)
        rates.append(10 * amount / (time.perf_counter() - start))
    return {"bf16_flop/s": rates[0], "copied_bytes/s": rates[1]}


def measure(parts: Parts, rehearse: bool) -> None:
    """All parts, the ones that matter most first."""
    device = parts.device
    parts.run("ceilings", 30, lambda: ceilings(device, 256 if rehearse else 8192))
    rate = parts.found["ceilings"].get("bf16_flop/s")
    rate = rate if isinstance(rate, float) else float("inf")
    tokenizer = AutoTokenizer.from_pretrained(model_path(EMBEDDED))
    sizes = (
        Options(users=2, turns=1, tokens=20, batch=2) if rehearse else Options(users=128, turns=2, tokens=48, batch=128)
    )
    width, cloned, turns, step = (128, 1, 2, 1) if rehearse else (512, 16, 6, 8)

    def worker(make: Callable[[], Backbone]) -> gpu.Work:
        return gpu.Work(make(), sizes, width, cloned, turns, step, rate)

    shape: dict[str, object] = {**TINY} if rehearse else {**QWEN}
    with _model(
        parts, "7B", lambda: worker(partial(gpu.random_model, tokenizer, device, torch.bfloat16, **shape))
    ) as work:
        if work is not None:
            each: list[tuple[str, float, Contender]] = [
                ("decode, bare", 40, gpu.bare_step),
                ("decode, ours", 40, gpu.our_steps),
                ("rollouts, ours", 60, gpu.our_rollouts),
                ("rollouts, generate", 60, gpu.generate_rollouts),
                ("rollouts, generate_batch", 60, gpu.continuous_rollouts),
                ("replies, bfloat16", 40, same_replies),
                ("features, ours", 30, gpu.features),
                ("LoRA, peft", 50, learn.peft_cloning),
                ("LoRA, TRL", 60, learn.trl_cloning),
                ("LoRA, ours", 50, partial(learn.our_cloning, what="lora")),
                ("planner, ours", 30, partial(learn.our_cloning, what="frozen")),
                ("rollouts, vLLM", 120, gpu.vllm_rollouts),
            ]
            _all(parts, "7B", work, each)

    def small() -> Backbone:
        if rehearse:
            return gpu.random_model(tokenizer, device, torch.float32, **TINY)
        return load_backbone(EMBEDDED, device=str(device), dtype="float32")

    with _model(parts, "embedded", lambda: worker(small)) as work:
        if work is not None:
            _all(parts, "embedded", work, [
                ("replies, float32", 40, same_replies),
                ("rollouts, ours", 40, gpu.our_rollouts),
                ("rollouts, generate", 40, gpu.generate_rollouts),
                ("LoRA, peft", 40, learn.peft_cloning),
                ("LoRA, ours", 40, partial(learn.our_cloning, what="lora")),
            ])  # fmt: skip


@contextmanager
def _model(parts: Parts, name: str, make: Callable[[], gpu.Work]) -> Iterator[gpu.Work | None]:
    """A model inside the block, None where it could not be made."""
    made: list[gpu.Work] = []

    def build() -> Facts:
        made.append(make())
        return {"parameters": made[0].parameters}

    parts.run(f"{name} model", 60, build)
    yield made.pop() if made else None


def _all(parts: Parts, name: str, work: gpu.Work, each: Sequence[tuple[str, float, Contender]]) -> None:
    for what, budget, contender in each:
        parts.run(f"{name} {what}", budget, partial(contender, work))
        work.backbone.kept = None  # a peer's memory is its own


def main(given: Sequence[str] | None = None) -> Mapping[str, Facts]:
    """Parse the command line, run, print a table and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder for gpu.json (default runs/gpu)")
    parser.add_argument("--rehearse", action="store_true", help="a tiny shape on the CPU, as without a GPU")
    options = parser.parse_args(given)
    rehearse = options.rehearse or not torch.cuda.is_available()
    device = torch.device("cpu" if rehearse else "cuda")
    parts = Parts(options.out, device, LIMIT)
    # On the CPU, too, steps come in the sizes of a GPU: that is what is rehearsed.
    fixed = patch.object(generate, "launch_for", lambda _device: FixedLaunch()) if rehearse else nullcontext()
    with fixed:
        measure(parts, rehearse)
    print(table(parts.found))
    return parts.found


if __name__ == "__main__":
    main()
