"""Everything on a device that is none: no tensor is left on the CPU, and the CPU does not wait for each number."""

from __future__ import annotations

import copy
import queue
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from pamdp.config import CloneConfig, Config, ModelConfig, RLConfig
from pamdp.engines.engine import Engine
from pamdp.engines.job import Ended, Failed, Job
from pamdp.env.reward import Reward
from pamdp.errors import PamdpError
from pamdp.evaluation.offline_eval import action_controls, write_replies
from pamdp.learner import Learner
from pamdp.models import attention, packed_branches
from pamdp.models.actor import Actor, Injector, Planner
from pamdp.models.backbone import Backbone
from pamdp.models.critics import Critic, DualCritic
from pamdp.models.embedded import load_backbone
from pamdp.models.generate import DecodeRow, Sampling, generate
from pamdp.models.policy import Policy
from pamdp.runs import Run
from pamdp.train.bc import Cloner
from pamdp.train.clone import clone
from pamdp.train.factory import load_policy, new_policy, policy_weights, set_weights
from pamdp.train.offline import offline, reference_replies, rollout_recorded
from pamdp.transitions import Batch, Rollout
from pamdp.types import Message
from tests.integration.test_devices import _scores
from tests.integration.test_training import PRINT, VowelJudge
from tests.tools.fake_device import DEVICE, waits
from tests.tools.learning import make_dialogues
from tests.tools.tiny import make_tiny_backbone

T = TypeVar("T")
CPU = torch.device("cpu")
DIALOGUES = make_dialogues()[:3]
KINDS: list[dict[str, object]] = [
    {"backbone": "frozen"},
    {"backbone": "lora"},
    {"backbone": "lora", "lora_layers": "all", "steer": 0.0},
    {"backbone": "full"},
]


def _backbone(device: torch.device) -> Backbone:
    tiny = make_tiny_backbone(dtype=torch.float64)  # two ways to attend then agree
    return Backbone(tiny.model.to(device), tiny.tokenizer, tiny.name, tiny.revision)


def _config(n_embeddings: int = 1, rl: dict[str, object] | None = None, **clone_settings: object) -> Config:
    return Config(
        model=ModelConfig(d_a=8, depth=0.5, n_embeddings=n_embeddings),
        clone=CloneConfig(epochs=1, batch_size=2, lora_rank=2, **clone_settings),
        rl=RLConfig(samples=2, epochs=2, batch_size=4, actor_every=1, lr_actor=1e-2, max_reply=6, **(rl or {})),
    )


def _policy(device: torch.device, config: Config) -> Policy:
    """A random policy whose actions and adapter change what is said."""
    policy = new_policy(_backbone(device), config)
    generator, weights = torch.Generator().manual_seed(0), policy_weights(policy)
    for name, tensor in [(n, t) for group in ("planner", "adapter") for n, t in weights.get(group, {}).items()]:
        if tensor.dim() == 2:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    set_weights(policy, weights)
    policy.trained_planner.actor.sigma.fill_(0.5)
    return policy


def _both(run: Callable[[torch.device], T]) -> tuple[T, T]:
    """The same on the device and on the CPU."""
    return run(DEVICE), run(CPU)


def _same(found: Tensor | None, wanted: Tensor | None) -> None:
    """Equal but for the last digits, and where it was asked for."""
    assert (found is None) == (wanted is None)
    if found is not None and wanted is not None:
        gap = (found.cpu() - wanted).norm() / wanted.norm().clamp_min(1e-3)
        print(float(gap))
        assert gap <= 1e-6, gap


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_cloning(kind: dict[str, object]) -> None:
    """Features, regression, loss, gradients and the step are the CPU's, and all of it is on the device."""

    def step(device: torch.device) -> tuple[Cloner, dict[str, float]]:
        cloner = Cloner(new_policy(_backbone(device), _config(**kind)), _config(**kind).clone)
        examples, _ = cloner.prepare(DIALOGUES)
        known = [x for e in examples for x in (e.states, *e.meanings) if x is not None and x.numel()]
        assert {x.device.type for x in known} <= {device.type}
        return cloner, cloner.update(examples, random.Random(0), torch.Generator().manual_seed(0), 3)

    (ours, log), (plain, wanted) = _both(step)
    print(log, wanted)
    assert log == pytest.approx(wanted, rel=1e-6)
    for group, other in zip(ours.optimizer.param_groups, plain.optimizer.param_groups, strict=True):
        for weight, same in zip(group["params"], other["params"], strict=True):
            assert weight.device == DEVICE
            _same(weight.grad, same.grad)
            _same(weight, same)
