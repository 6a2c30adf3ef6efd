"""Two processes learn in miniature: `torchrun --nproc_per_node 2 -m tests.tools.distributed FOLDER [killed]`.

What one process computes of the same is a function here, too. Nothing needs a GPU: gloo connects the processes.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pamdp import ranks
from pamdp.checkpoint import save_tensors
from pamdp.config import CloneConfig, Config, ModelConfig, RLConfig
from pamdp.data import load_sample, load_sample_pairs
from pamdp.errors import EndpointError, RunError
from pamdp.judges.base import Case, Verdict
from pamdp.train.bc import Cloner
from pamdp.train.clone import clone
from pamdp.train.factory import new_policy, policy_weights
from pamdp.train.offline import offline
from pamdp.train.online import online
from pamdp.workflows import open_run
from tests.tools.learning import PRINT, Killer, make_dialogues, make_learning, make_policy, make_world
from tests.tools.tiny import make_tiny_backbone

ROOT = Path(__file__).resolve().parents[2]
CASES = [("DDP", "frozen"), ("DDP", "lora"), ("DDP", "full"), ("DDP", "packed"), ("FSDP", "lora"), ("FSDP", "full")]
CALLS = 11
"""Calls of the judge by the second process before it is killed, in its second round."""


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def launch(module: Sequence[str], launcher: Sequence[str] = TORCHRUN) -> subprocess.CompletedProcess[str]:
    """Start a module with its arguments in two processes, and wait."""
    command = [sys.executable, "-m", *launcher, "-m", *module]
    given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, env=given)


def shard(kind: str) -> None:
    """Have cloning shard or not, as accelerate's launcher does."""
    os.environ.update({"ACCELERATE_USE_FSDP": str(kind == "FSDP").lower(), "FSDP_VERSION": "2"})


def make_config(what: str) -> Config:
    """Of what learns; "packed": LoRA, and each process does its share of a step in one pass."""
    backbone, tokens = ("lora", 10_000) if what == "packed" else (what, 0)
    settings = {"backbone": backbone, "lora_layers": "all", "max_reply": 16, "batch_size": 3, "save_every": 2}
    return Config(
        model=ModelConfig(d_a=8, depth=0.5),
        clone=CloneConfig.model_validate({**settings, "pack_tokens": tokens, "epochs": 3}),
        rl=RLConfig(rounds=2, epochs=2, samples=2, batch_size=8, max_reply=6, form_states=5, reference="preferred"),
    )


def steps(backbone: str) -> dict[str, Tensor]:
    """Three steps of three examples each: losses, norms, and every gradient."""
    config, out = make_config(backbone), dict[str, Tensor]()
    cloner = Cloner(new_policy(make_tiny_backbone(), config), config.clone)
    examples, _ = cloner.prepare(load_sample("train").dialogues[:4], load_sample_pairs("train").pairs[:3])
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    for step in range(3):
        log = cloner.update(examples[2 * step :][:3], rng, generator, 8)
        out |= {f"{step}.{name}": torch.tensor(value) for name, value in log.items()}
        learned = [p for group in cloner.optimizer.param_groups for p in group["params"]]
        for i, parameter in enumerate(learned):
            if parameter.grad is not None:
                whole = cloner.parallel.whole(parameter.grad.detach())
                assert isinstance(whole, Tensor)
                out[f"{step}.gradient.{i}"] = whole.clone()
    cloner.parallel.end()
    weights = policy_weights(cloner.policy)
    return out | {f"weights.{group}.{name}": x for group, own in weights.items() for name, x in own.items()}


class Stopped(Exception):
    """A run was interrupted."""


def cloned(path: Path, backbone: str, stop: int | None = None) -> dict[str, Tensor]:
    """A whole run of cloning, or one that stops after some steps; what is there is resumed."""
    config = make_config(backbone)
    with open_run(path, config, PRINT, resume=True) as run:
        log = run.log

        def dying(step: int, *rest: object) -> None:
            log(step, *rest)  # type: ignore[arg-type]
            if step == stop:
                raise Stopped

        run.log = dying  # type: ignore[assignment, method-assign]
        train, test = load_sample("train").dialogues[:4], load_sample("train").dialogues[4:5]
        policy = clone(new_policy(make_tiny_backbone(), config), train, test, config, run)
    return dict(policy.trained_planner.state_dict())


def interrupted(path: Path, backbone: str) -> None:
    """A run of cloning that stops with a checkpoint behind it."""
    try:
        cloned(path, backbone, stop=3)
    except Stopped:
        return
    raise AssertionError("it was not interrupted")


class VowelJudge:
    """Prefers the reply with the larger share of vowels."""

    name = "vowels"
    fingerprint = {"name": "vowels"}  # noqa: RUF012

    def judge(self, cases: Sequence[Case], progress: object = None) -> list[Verdict]:
        shares = [[sum(c in "aeiou" for c in text) / max(len(text), 1) for text in (case.a, case.b)] for case in cases]
        return [
            Verdict(0.9, 0.1) if a > b else Verdict(0.1, 0.9) if b > a else Verdict(0.0, 0.0, 1.0) for a, b in shares
        ]


def reinforced(path: Path) -> None:
    """Offline reinforcement from a policy that has learned nothing yet."""
    config = make_config("frozen")
    policy = new_policy(make_tiny_backbone(), config)
    policy.trained_planner.actor.sigma.fill_(1.0)
    with open_run(path, config, PRINT, resume=True) as run:
        offline(policy, load_sample("train").dialogues[:3], VowelJudge(), config, run)


def talked(path: Path, calls: int | None = None) -> None:
    """Online learning; the second process dies at the judge's call number CALLS."""
    config = make_learning()
    mortal = calls is not None and ranks.rank() == 1
    world = make_world(config, wrap=lambda role, m: Killer(m, calls or 0) if mortal and role == "judge" else m)
    with open_run(path, config, PRINT, resume=True) as run:
        online(make_policy(config), make_dialogues(silent=True), world, config, run)


def main(folder: Path) -> None:
    for kind, backbone in CASES:
        shard(kind)
        found = steps(backbone)
        if not ranks.rank():
            save_tensors(folder / f"{kind}-{backbone}.safetensors", found)
    shard("DDP")
    cloned(folder / "two", "lora")
    cloned(folder / "one-two", "lora")
    shard("FSDP")
    interrupted(folder / "two-one", "full")
    shard("DDP")
    try:
        with ranks.agreed():
            if ranks.rank() == 1:
                raise EndpointError("the second process's server is down")
    except EndpointError:
        (folder / f"stopped-{ranks.rank()}").touch()
    try:
        ranks.require_same("data", ranks.rank())
    except RunError:
        (folder / f"other-{ranks.rank()}").touch()
    reinforced(folder / "offline")
    talked(folder / "online")
    ranks.leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[2:] == ["killed"]:
        talked(Path(sys.argv[1]), CALLS)
    else:
        main(Path(sys.argv[1]))
