"""Which policies mean the same by an action: those whose A2, steering, adapter and backbone are the same.

Owns one hash. Knows nothing of A1, which may differ: that is what a ratio of densities is for.
"""

from __future__ import annotations

import hashlib

import torch

from pamdp.models.policy import Policy
from pamdp.train.factory import policy_weights


def action_space(policy: Policy) -> str:
    """A hash of all that lies between an action and a reply, and between a history and H(h)."""
    digest = hashlib.sha256(f"{policy.backbone.revision}:{policy.readout}:{policy.system}".encode())
    for group, weights in sorted(policy_weights(policy).items()):
        for name, value in sorted(weights.items()):
            if group == "planner" and name.startswith("actor."):
                continue
            digest.update(f"{group}.{name}{tuple(value.shape)}".encode())
            digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
