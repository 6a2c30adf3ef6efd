"""What a chat is worth, to anybody and to this user: V(h) and V(h, ω), for the page that shows a profile.

Owns one reading of both critics. Knows nothing of stores. It is the only thing that an edited profile changes here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pamdp.models.critics import DualCritic, privileged_prefixes
from pamdp.models.policy import Policy
from pamdp.types import History, Persona, TimeStep


@dataclass(frozen=True, slots=True)
class Value:
    """Expected discounted rewards from here on: V(h), and V(h, ω) with the profile."""

    v_h: float
    v_hw: float


@torch.no_grad()
def value_of(policy: Policy, critics: DualCritic, history: History, profile: Persona) -> Value:
    """V(h) and V(h, ω). The profile is read by the critic alone, in a pass of its own; no reply comes of it."""
    h = policy.features(policy.prefix(history))
    moment = TimeStep("", 0, history, profile)
    hw = policy.features(privileged_prefixes(policy, [moment], [None])[0])
    return Value(float(critics.v_h(h)), float(critics.v_hw(hw)))
