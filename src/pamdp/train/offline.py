"""`pamdp train offline`: reinforcement learning on recorded dialogues (paper, section 4.1).

Owns the recorded source of rollouts. States are the dataset's histories along the chosen path; the actor draws actions,
the backbone writes, a judge compares with the reference u_g, h′ is the dataset's next history. The loop is that of
reinforce.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from pamdp.config import Config
from pamdp.judges.base import Judge, forget
from pamdp.models.backbone import Backbone
from pamdp.models.policy import Policy
from pamdp.progress import Progress
from pamdp.rollout import Rollout
from pamdp.runs import Run
from pamdp.train.reinforce import reinforce
from pamdp.train.rollout_recorded import replies_of, rollout_recorded, vanilla
from pamdp.types import Dialogue, History


def offline(
    policy: Policy,
    dialogues: Sequence[Dialogue],
    judge: Judge,
    config: Config,
    run: Run,
    folder: str = "offline",
    bare: Backbone | None = None,
) -> Policy:
    """Improve a cloned POLICY on recorded dialogues; resumes from the last finished round.

    Args:
      bare: writes Vanilla's references; None: the policy's own backbone, where cloning left it as it was.

    Returns:
      The same policy with its actor updated, also written to RUN/trained.
    """
    source = _Recorded(policy, dialogues, judge, config, reference_replies(policy, dialogues, config, bare))
    return reinforce(policy, source, config.rl.rounds, config, run, folder)


@dataclass(slots=True)
class _Recorded:
    policy: Policy
    dialogues: Sequence[Dialogue]
    judge: Judge
    config: Config
    references: dict[History, list[str]]
    privileged: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def collect(self, step: int) -> list[Rollout]:
        settings = self.config.rl
        turns = sum(len(d.turns) for d in self.dialogues)
        forget(self.judge)
        with Progress(f"round {step + 1}/{settings.rounds}", turns * settings.samples) as bar:
            return rollout_recorded(
                self.policy, self.dialogues, settings, judge=self.judge, references=self.references,
                samples=settings.samples, explore=True, privileged=self.privileged,
                seed=self.config.seed + 1000 * (step + 1), progress=bar.advance,
            )  # fmt: skip

    def scalars(self) -> dict[str, float]:
        return {}

    def learned(self, step: int) -> None:
        pass


def reference_replies(
    policy: Policy, dialogues: Sequence[Dialogue], config: Config, bare: Backbone | None = None
) -> dict[History, list[str]]:
    """u_g for every state: the cloned policy's own reply, Vanilla's (written by BARE), or the record's preferred one.

    Raises:
      ConfigError: cloning changed every weight of the policy's backbone, and no bare one is given to write for Vanilla.
    """
    if config.rl.reference == "preferred":
        # A turn without a preferred reply has nothing to compare with: its reward is None.
        return {
            d.history(t): [turn.preferred] if turn.preferred else []
            for d in dialogues
            for t, turn in enumerate(d.turns)
        }
    writer = vanilla(policy, bare, config, "rl") if config.rl.reference == "vanilla" else policy
    with Progress("references", sum(len(d.turns) for d in dialogues)) as bar:
        return replies_of(rollout_recorded(writer, dialogues, config.rl, progress=bar.advance))


def drawn_replies(policy: Policy, dialogues: Sequence[Dialogue], config: Config) -> list[tuple[History, list[str]]]:
    """The replies that a first round of learning would draw, for scorers that learn what a model's replies are like."""
    settings = config.rl
    with Progress("drawing", sum(len(d.turns) for d in dialogues) * settings.samples) as bar:
        drawn = rollout_recorded(
            policy, dialogues, settings, samples=settings.samples, explore=True, seed=config.seed + 1000,
            progress=bar.advance,
        )  # fmt: skip
    return list(replies_of(drawn).items())
