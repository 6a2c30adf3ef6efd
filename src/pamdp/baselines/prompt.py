"""Vanilla and Prompt: the bare backbone under a minimal instruction, and under one to infer the user first.

Owns nothing that learns.
"""

from __future__ import annotations

from pamdp.baselines.method import Job, Method, register
from pamdp.baselines.replies import PolicyReplier
from pamdp.models.policy import Policy
from pamdp.prompts.render import load


def vanilla(job: Job) -> PolicyReplier:
    """The backbone as it is: what all methods are compared with."""
    return PolicyReplier(Policy(job.load()), job.config.rl)


def prompt(job: Job) -> PolicyReplier:
    """The backbone, told to infer from the history whom it talks with and to reply to that person."""
    return PolicyReplier(Policy(job.load(), system=load("assistant_infer")), job.config.rl)


VANILLA = register(Method("Vanilla", vanilla, seeded=False))
PROMPT = register(Method("Prompt", prompt, seeded=False))
