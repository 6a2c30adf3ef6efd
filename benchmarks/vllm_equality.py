"""Are vLLM's greedy replies those of `generate`? `python -m benchmarks.vllm_equality` (docs/vllm.md has the figures).

States are turns of the test users of the sample `plain`. Where replies differ, the gap is the difference of the two
tokens' logits at the first place where they do, as the backbone gives it: of a near tie either may come first.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

import pamdp
from pamdp.config import DataConfig, EngineConfig
from pamdp.engines.vllm import require_engine, use_engine
from pamdp.models.actor import Injector
from pamdp.models.embedded import load_backbone
from pamdp.models.generate import Sampling, generate
from pamdp.models.policy import Policy, Request, path
from pamdp.models.prefix import Prefix
from pamdp.train.factory import load_split


def policies(n_embeddings: int = 4) -> dict[str, Policy]:
    """The shipped policy (adapter and shift), the plain model, and the first with random action embeddings besides."""
    shipped = pamdp.load("shipped", load_backbone("embedded"))
    plain = Policy(shipped.backbone, readout=shipped.readout)
    planner = copy.deepcopy(shipped.trained_planner)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        planner.injector = Injector(shipped.backbone.d, shipped.config.model.d_a, n_embeddings)
    return {"shift": shipped, "plain": plain, "embeddings and shift": replace(shipped, planner=planner)}


def gap(policy: Policy, prefix: Prefix, request: Request, ours: Sequence[int], theirs: Sequence[int]) -> float:
    """By how much the backbone prefers our token to theirs at the first place where two replies differ."""
    ended = policy.backbone.chat.end
    at = next(i for i, (a, b) in enumerate(zip([*ours, ended], [*theirs, ended], strict=False)) if a != b)
    both = [policy.branch(prefix, request.t, [*ids, ended][: at + 1], request.action) for ids in (ours, theirs)]
    a, b = policy.log_probs(prefix, both)
    return float(a[at] - b[at])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--penalty", type=float, default=1.0, help="repetition_penalty")
    parser.add_argument("--temperature", type=float, default=0.0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sampling = Sampling(asked.tokens, asked.temperature, repetition_penalty=asked.penalty, trim=False)
    dialogues = load_split(DataConfig(path="plain")).test
    compared = policies()
    shipped = compared["shift"]
    config = shipped.config.model_copy(update={"engine": EngineConfig(kind="vllm")})
    require_engine(config)
    writer = use_engine(shipped.backbone, config).writer
    assert writer is not None
    for name, policy in compared.items():
        prefixes, requests = list[Prefix](), list[Request]()
        for dialogue in dialogues:
            prefix = policy.prefix(path(dialogue))
            for t in range(len(dialogue.turns))[: asked.states - len(requests)]:
                requests.append(Request(len(prefixes), t, policy.mean_action(prefix, t), len(requests)))
            prefixes.append(prefix)
            if len(requests) == asked.states:
                break
        rows = [policy.row(prefixes[request.prefix], request) for request in requests]
        seconds, found = list[float](), list[list[list[int]]]()
        with policy.active():
            for write in (generate, writer):
                begun = time.perf_counter()
                found.append(write(policy.backbone, prefixes, rows, sampling, layer=policy.readout.layer))
                seconds.append(time.perf_counter() - begun)
        gaps = [
            gap(policy, prefixes[request.prefix], request, ours, theirs)
            for request, ours, theirs in zip(requests, *found, strict=True)
            if ours != theirs
        ]
        differ = ", ".join(f"{g:.1e}" for g in sorted(gaps)) or "none"
        print(
            f"{name}: {len(rows) - len(gaps)} of {len(rows)} replies equal; gaps where they part: {differ}; "
            f"seconds: {seconds[0]:.0f}, vLLM {seconds[1]:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
