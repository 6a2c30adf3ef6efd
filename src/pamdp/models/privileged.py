"""H(h, ω): what V_ξ sees, the history with the user's profile in front.

Owns that reading of a state, apart from the policy, which must never be given a profile (models/policy.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from pamdp.models.backbone import Prefix
from pamdp.models.policy import Policy
from pamdp.models.prefill import prefill
from pamdp.prompts.render import render
from pamdp.types import TimeStep


def privileged_prefixes(
    policy: Policy, moments: Sequence[TimeStep], before: Sequence[Prefix | None] = ()
) -> list[Prefix]:
    """What H(h, ω) of each moment is read from; for critics only, so no deeper than it is read.

    Args:
      policy: gives the backbone, its adapter and where states are read.
      before: what this gave for an earlier turn of each dialogue, or None; it is left out where the profile changed.
    """
    encoded = [
        policy.backbone.chat.history(m.history, render("assistant_for", persona=m.privileged.text)) for m in moments
    ]
    earlier = [
        None if p is None or e.ids[: len(p.encoded.ids)] != p.encoded.ids else p
        for e, p in zip(encoded, before or [None] * len(encoded), strict=True)
    ]
    with policy.active():
        return prefill(policy.backbone, encoded, policy.readout.layer, earlier, shallow=True)
