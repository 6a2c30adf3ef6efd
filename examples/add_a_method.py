"""A new row for the tables: the bare backbone, cut after its first sentence.

Run it with `pamdp reproduce table2 --method examples/add_a_method.py 'methods=["Brief"]'`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pamdp.baselines.method import Job, Method, register
from pamdp.baselines.replies import PolicyReplier, Replies
from pamdp.models.policy import Policy
from pamdp.types import Dialogue


class Brief:
    """Says one sentence."""

    def __init__(self, replier: PolicyReplier) -> None:
        self.replier = replier

    def write(self, dialogues: Sequence[Dialogue], progress: Callable[[int], None] | None = None) -> Replies:
        """One reply to every state."""
        replies = self.replier.write(dialogues, progress)
        return {state: re.split(r"(?<=[.!?])\s", reply, maxsplit=1)[0] for state, reply in replies.items()}


def train(job: Job) -> Brief:
    """Nothing to learn here; a method that learns has `job.train`, `job.config` and `job.judge()`."""
    return Brief(PolicyReplier(Policy(job.load()), job.config.rl))


register(Method("Brief", train, seeded=False))
