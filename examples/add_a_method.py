"""A new row for the tables: the bare backbone, cut after its first sentence.

`pamdp reproduce table2 --plugin examples/add_a_method.py 'methods=["Brief"]'`
"""

import re
from collections.abc import Callable, Sequence

import pamdp
from pamdp.baselines.method import Job
from pamdp.baselines.replies import PolicyReplier
from pamdp.models.recorded import Replies


class Brief(PolicyReplier):
    """Says one sentence."""

    def write(self, dialogues: Sequence[pamdp.Dialogue], progress: Callable[[int], None] | None = None) -> Replies:
        """One reply to every state."""
        replies = super().write(dialogues, progress)
        return {state: re.split(r"(?<=[.!?])\s", reply, maxsplit=1)[0] for state, reply in replies.items()}


@pamdp.method("Brief", seeded=False)
def brief(job: Job) -> Brief:
    """Nothing to learn; a method that learns has `job.train`, `job.config` and `job.judge()`."""
    return Brief(pamdp.Policy(job.load()), job.config.rl)
