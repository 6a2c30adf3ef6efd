"""`pamdp train offline`: collect, advantages, update, log, save (paper, section 4.1).

Owns the main loop of offline reinforcement learning. States are the dataset's histories along the chosen path; the
actor draws actions, the backbone writes, a judge compares with the reference u_g, h′ is the dataset's next history.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pamdp import checkpoint
from pamdp.config import Config
from pamdp.judges.base import Judge
from pamdp.learner import Learner, to_batch
from pamdp.models.critics import DualCritic
from pamdp.models.policy import Policy
from pamdp.progress import Progress
from pamdp.rl.returns import max_value
from pamdp.rollout import Rollout
from pamdp.runs import Run
from pamdp.train.play import play, replies_of
from pamdp.train.setup import save_policy
from pamdp.types import Dialogue, History

R_MAX = 1.0
"""Largest reward (paper, section 4.1)."""


def offline(
    policy: Policy, dialogues: Sequence[Dialogue], judge: Judge, config: Config, run: Run, folder: str = "offline"
) -> Policy:
    """Improve a cloned POLICY on recorded dialogues; resumes from the last finished round.

    Returns:
      The same policy with its actor updated, also written to RUN/trained.
    """
    assert policy.planner is not None
    settings, actor = config.rl, policy.planner.actor
    critics = DualCritic(policy.width, policy.width, max_value(R_MAX, settings.gamma, settings.horizon))
    learner = Learner(actor, critics, copy.deepcopy(actor), settings)
    generator = torch.Generator().manual_seed(config.seed)
    saved = run.path / "checkpoints" / folder
    references = reference_replies(policy, dialogues, config)
    turns = sum(len(d.turns) for d in dialogues)
    privileged: dict[tuple[str, int], Tensor] = {}
    first = _restore(learner, saved, generator)
    run.rewind(first * settings.epochs, folder)
    for step in range(first, settings.rounds):
        with Progress(f"round {step + 1}/{settings.rounds}", turns * settings.samples) as bar:
            rollouts = play(
                policy, dialogues, settings, judge=judge, references=references, samples=settings.samples,
                explore=True, privileged=privileged, seed=config.seed + 1000 * (step + 1), progress=bar.advance,
            )  # fmt: skip
        batch = to_batch(rollouts)
        if step == 0:
            critics.v_h.whiten.fit(batch.h)
            critics.v_hw.whiten.fit(batch.hw)
        for epoch, metrics in enumerate(learner.update(batch, generator), start=1):
            run.log(step * settings.epochs + epoch, metrics, folder)
        _trace(run, (step + 1) * settings.epochs, rollouts, learner, folder)
        _save(learner, saved, step + 1, generator)
    save_policy(policy, config, run.path / "trained")
    return policy


def reference_replies(policy: Policy, dialogues: Sequence[Dialogue], config: Config) -> dict[History, list[str]]:
    """u_g for every state: the cloned policy's own reply, Vanilla's, or the record's preferred one."""
    if config.rl.reference == "preferred":
        # A turn without a preferred reply has nothing to compare with: its reward is None.
        return {
            d.history(t): [turn.preferred] if turn.preferred else []
            for d in dialogues
            for t, turn in enumerate(d.turns)
        }
    writer = policy if config.rl.reference == "clone" else Policy(policy.backbone, None, None, policy.readout)
    with Progress("references", sum(len(d.turns) for d in dialogues)) as bar:
        return replies_of(play(writer, dialogues, config.rl, progress=bar.advance))


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
    checkpoint.save(
        folder,
        step,
        {"actor": learner.actor.state_dict(), "critics": learner.critics.state_dict()},
        {},
        {
            "actor_optimizer": learner.actor_optimizer.state_dict(),
            "critic_optimizer": learner.critic_optimizer.state_dict(),
            "generator": generator.get_state(),
            "learner": dict[str, checkpoint.Tree](learner.state()),
        },
    )


def _restore(learner: Learner, folder: Path, generator: torch.Generator) -> int:
    path = checkpoint.latest(folder)
    if path is None:
        return 0
    saved = checkpoint.load(path)
    learner.actor.load_state_dict(saved.weights["actor"])
    learner.critics.load_state_dict(saved.weights["critics"])
    learner.actor_optimizer.load_state_dict(saved.state["actor_optimizer"])  # type: ignore[arg-type]
    learner.critic_optimizer.load_state_dict(saved.state["critic_optimizer"])  # type: ignore[arg-type]
    generator.set_state(saved.state["generator"])  # type: ignore[arg-type]
    learner.load_state(saved.state["learner"])  # type: ignore[arg-type]
    return saved.step
