"""BC and what is reinforced from it: RL-base, UAAC, DCRL, PAMDP, ODC; they differ in the advantage and in nothing else.

Owns which advantage a method's name stands for, and that every other advantage is a method, too. All methods of one
seed start from one cloned policy.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from pamdp.baselines.config import REINFORCED, TuneConfig
from pamdp.baselines.method import Budget, Job, Method, no_preferred, register, untrained
from pamdp.baselines.replies import PolicyReplier
from pamdp.config import Config
from pamdp.models.policy import Policy
from pamdp.registry import ADVANTAGES, METHODS
from pamdp.train.clone import clone
from pamdp.train.factory import load_policy, new_policy
from pamdp.train.offline import offline

WATCHED = 2
"""Training dialogues whose likelihood is logged at the end of cloning: nobody may look at users that test."""


def cloned(job: Job) -> Policy:
    """The cloned policy of this seed: loaded, or cloned now, from where an interrupted run left it."""
    backbone, folder = job.load(), job.root / "clone"
    if (folder / "policy" / "config.json").is_file():
        return load_policy(folder / "policy", backbone)
    with job.open("clone", job.config, backbone) as run:
        return clone(new_policy(backbone, job.config), job.train, job.train[:WATCHED], job.config, run)


def bc(job: Job) -> PolicyReplier:
    """The cloned policy itself."""
    return PolicyReplier(cloned(job), job.config.rl)


def reinforced(job: Job, name: str) -> PolicyReplier:
    """The cloned policy after reinforcement learning with the advantage of NAME, a method or an advantage itself."""
    policy, judge = cloned(job), job.judge()
    rl = job.config.rl.model_copy(update={"advantage": REINFORCED.get(name, name)})
    config = job.config.model_copy(update={"rl": rl})
    # Where cloning changed every weight, Vanilla's references need those that it did not change.
    bare = job.load() if config.clone.backbone == "full" and rl.reference == "vanilla" else None
    with job.open(name, config, policy.backbone, [judge]) as run:
        return PolicyReplier(offline(policy, job.train, judge, config, run, bare=bare, ledger=job.ledger), rl)


def _budget(config: Config, tune: TuneConfig, turns: int) -> Budget:
    weights = {"frozen": "planner", "lora": "planner and LoRA", "full": "planner and all"}[config.clone.backbone]
    return replace(untrained(config, tune, turns), examples=turns * config.clone.epochs, weights=weights)


def _budget_rl(config: Config, tune: TuneConfig, turns: int) -> Budget:
    draws = turns * config.rl.rounds * config.rl.samples
    return replace(_budget(config, tune, turns), draws=draws, verdicts=draws)


def reinforced_method(name: str) -> Method:
    """The method that reinforces the cloned policy with the advantage of NAME."""
    return Method(name, partial(reinforced, name=name), _budget_rl, shares="clone", lacks=no_preferred)


def find(name: str) -> Method:
    """The method of that name, or the one that reinforces with the advantage NAME; else a ConfigError lists all."""
    return reinforced_method(name) if name not in METHODS and name in ADVANTAGES else METHODS[name]


BC = register(Method("BC", bc, _budget, shares="clone", lacks=no_preferred))
for method in REINFORCED:
    register(reinforced_method(method))
