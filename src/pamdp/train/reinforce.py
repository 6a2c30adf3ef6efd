"""The loop of reinforcement learning, whoever the users are: collect, advantages, update, log, save.

Owns the loop, its checkpoints and its traces. Knows nothing of where dialogues come from: recorded ones (offline.py)
and simulated ones (online.py) are two sources of the same rollouts. Advantages are the learner's, by name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pamdp import checkpoint, ranks
from pamdp.config import Config
from pamdp.learner import Learner
from pamdp.models.critics import DualCritic
from pamdp.models.policy import Policy
from pamdp.rl.returns import max_value
from pamdp.runs import Run
from pamdp.train.factory import save_policy
from pamdp.train.trust_region import TrustRegion
from pamdp.transitions import Rollout, to_batch
from pamdp.types import Dialogue

R_MAX = 1.0
"""Largest reward (paper, section 4.1)."""


def reinforce(
    policy: Policy,
    dialogues: Sequence[Dialogue],
    collect: Callable[[Policy, int], list[Rollout]],
    rounds: int,
    config: Config,
    run: Run,
    stage: str,
    scalars: Callable[[], dict[str, float]] = dict,
    learned: Callable[[int], None] = lambda _: None,
) -> Policy:
    """Improve a cloned POLICY for some rounds; resumes from the last finished one.

    Args:
      dialogues: the records of the users that are learned from.
      collect: the rollouts of a round under a policy; the same again for the same policy.
      stage: names the rows of the log and the folder of checkpoints.
      scalars: what else is worth logging of the round that was collected last.
      learned: told that a round is in a checkpoint and will not be asked for again.

    Returns:
      A policy with another actor, also written to RUN/trained; the cloned one stays as it is.
    """
    settings = config.rl
    critics = DualCritic(policy.width, policy.width, max_value(R_MAX, settings.gamma, settings.horizon))
    learner = Learner(copy.deepcopy(policy.trained_planner.actor).cpu(), critics, settings)
    generator = torch.Generator().manual_seed(config.seed)
    saved = run.path / "checkpoints" / stage
    first = _restore(learner, saved, generator)
    ranks.require_same("last checkpoint", first)
    run.rewind(first * settings.epochs, stage)
    region = TrustRegion(policy, dialogues, settings, config.seed)
    for step in range(first, rounds):
        rollouts = collect(policy.with_actor(learner.actor()), step)
        batch = to_batch(rollouts, ends_at_horizon=settings.paper_literal)
        if step == 0:
            learner.fit(batch)
        before = {name: value.clone() for name, value in learner.delta.state_dict().items()}
        updates = learner.update(batch, generator)
        held = region.hold(learner, before)
        # All processes learn the same; should their digits differ, as on machines of two kinds, the first one's count.
        for module in (learner.delta, learner.critics):
            module.load_state_dict(ranks.gather(module.state_dict())[0])
        for epoch, metrics in enumerate(updates, start=1):
            last = held if epoch == len(updates) else {}
            run.log(step * settings.epochs + epoch, metrics | scalars() | last, stage)
        _trace(run, (step + 1) * settings.epochs, rollouts, learner, stage)
        _save(learner, saved, step + 1, generator)
        learned(step)
    users = policy.users.union(d.user_id for d in dialogues)
    trained = replace(policy.with_actor(learner.actor()), config=config, users=users)
    save_policy(trained, run.path / "trained", critics)
    return trained


def _trace(run: Run, step: int, rollouts: Sequence[Rollout], learner: Learner, stage: str) -> None:
    for rollout in rollouts:
        for t in rollout.transitions:
            with torch.no_grad():
                value_h = float(learner.critics.v_h(rollout.features_h[t.key, t.t]))
                value_hw = float(learner.critics.v_hw(rollout.features_hw[t.key, t.t]))
            run.trace(
                step,
                {
                    "dialogue": t.key, "turn": t.t, "sample": t.k, "assistant": t.reply, "reward": t.reward,
                    "user": rollout.moments[t.key, t.t].history[-1].content,
                    "profile": rollout.moments[t.key, t.t].privileged.text,
                    "action": [] if t.action is None else [round(float(x), 4) for x in t.action],
                    "value_h": value_h, "value_hw": value_hw,
                },
                stage,
            )  # fmt: skip


def _save(learner: Learner, folder: Path, step: int, generator: torch.Generator) -> None:
    weights = {"moves": learner.delta.state_dict(), "critics": learner.critics.state_dict()}
    state: dict[str, checkpoint.Tree] = {
        "actor_optimizer": learner.actor_optimizer.state_dict(),
        "critic_optimizer": learner.critic_optimizer.state_dict(),
        "generator": generator.get_state(),
        "learner": dict[str, checkpoint.Tree](learner.state()),
    }
    checkpoint.save(folder, step, weights, state)


def _restore(learner: Learner, folder: Path, generator: torch.Generator) -> int:
    if (path := checkpoint.latest(folder)) is None:
        return 0
    saved = checkpoint.load(path)
    learner.delta.load_state_dict(saved.weights["moves"])
    learner.critics.load_state_dict(saved.weights["critics"])
    # What _save stored comes back equal, but as a Tree: its own type is lost on the way.
    learner.actor_optimizer.load_state_dict(saved.state["actor_optimizer"])  # type: ignore[arg-type]
    learner.critic_optimizer.load_state_dict(saved.state["critic_optimizer"])  # type: ignore[arg-type]
    generator.set_state(saved.state["generator"])  # type: ignore[arg-type]
    learner.load_state(saved.state["learner"])  # type: ignore[arg-type]
    return saved.step
