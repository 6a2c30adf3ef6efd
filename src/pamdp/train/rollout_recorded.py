"""Playing recorded dialogues: replies of a policy to every state of a dataset, in batches that fit in memory.

Owns the batching of dialogues and the references u_g that rewards compare with. Knows nothing of learning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from pamdp.config import Config, RLConfig
from pamdp.env.dialogue import DialogueEnv
from pamdp.env.reward import References, Reward
from pamdp.env.user import RecordedUser
from pamdp.errors import ConfigError
from pamdp.judges.base import Case, Judge, Verdict
from pamdp.models.backbone import Backbone
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy
from pamdp.rollout import Rollout, collect
from pamdp.types import Dialogue, History


class Unjudged:
    """A judge for runs where nobody asks: every verdict is a tie."""

    name = "none"

    @property
    def fingerprint(self) -> dict[str, str]:
        """Nobody."""
        return {"name": self.name}

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        """A tie for each case."""
        return [Verdict(0.0, 0.0, 1.0) for _ in cases]


def rollout_recorded(
    policy: Policy,
    dialogues: Sequence[Dialogue],
    config: RLConfig,
    *,
    judge: Judge | None = None,
    references: References | None = None,
    samples: int = 1,
    explore: bool = False,
    privileged: dict[tuple[str, int], Tensor] | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[Rollout]:
    """Replies to every state along the chosen paths; rewarded where a judge and references are given."""
    out = []
    for start in range(0, len(dialogues), config.dialogues):
        users = [RecordedUser(d, config.profile == "inferred") for d in dialogues[start : start + config.dialogues]]
        reward = Reward(judge or Unjudged(), references or _nothing(users), config.soft)
        out.append(
            collect(
                policy,
                DialogueEnv(users, reward, None),
                Sampling(config.max_reply),
                samples=samples,
                explore=explore,
                privileged=privileged,
                seed=seed,
                progress=progress,
            )
        )
    return out


def vanilla(policy: Policy, bare: Backbone | None, config: Config, part: str) -> Policy:
    """The plain model as an author of references, on BARE or, where cloning left its weights alone, on the own one.

    Args:
      part: of the settings that ask for it, "rl" or "online".

    Raises:
      ConfigError: cloning changed every weight of the policy's backbone, and no bare one is given.
    """
    if bare is None and config.clone.backbone == "full":
        raise ConfigError(
            f"{part}.reference=vanilla: cloning changed every weight (clone.backbone=full); give `bare`, a backbone of "
            f"its own for Vanilla, or set {part}.reference=clone"
        )
    return Policy(bare or policy.backbone, None, None, policy.readout)


def _nothing(users: Sequence[RecordedUser]) -> References:
    return {user.dialogue.history(t): () for user in users for t in range(len(user.dialogue.turns))}


def replies_of(rollouts: Sequence[Rollout]) -> dict[History, list[str]]:
    """The replies of some rollouts by history, in the order of their samples."""
    out: dict[History, list[str]] = {}
    for rollout in rollouts:
        for t in rollout.transitions:
            out.setdefault(rollout.moments[t.key, t.t].history, []).append(t.reply)
    return out
