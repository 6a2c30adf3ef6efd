"""Where a reinforced policy comes from: who taught it, and which cloned policy it was before.

Owns the record `origin.json` of a run of `pamdp train online`: settings do not say which users a share or a count came
to. A comparison reads it before it takes a policy that was trained elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from pamdp.errors import RunError
from pamdp.files import Json
from pamdp.models.policy import Policy
from pamdp.train.factory import policy_weights
from pamdp.types import Dialogue

ORIGIN = "origin.json"


def provenance_of(policy: Policy, dialogues: Sequence[Dialogue]) -> dict[str, Json]:
    """What POLICY is about to become: users that teach it, ids of their records, sha256 of its weights."""
    digest = hashlib.sha256()
    for group, weights in sorted(policy_weights(policy).items()):
        for name, tensor in sorted(weights.items()):
            digest.update(json.dumps([group, name, list(tensor.shape)]).encode())
            # As bytes: not every kind of number has a counterpart in numpy.
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    users = sorted({d.user_id for d in dialogues})
    return {"users": users, "dialogues": [d.id for d in dialogues], "policy": digest.hexdigest()}


def read_provenance(path: Path) -> dict[str, Json]:
    """What is stored in the run at PATH.

    Raises:
      RunError: nothing is, or it is damaged.
    """
    try:
        return dict(json.loads((path / ORIGIN).read_bytes()))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} does not say who taught it ({ORIGIN}: {error}); train it anew") from error
