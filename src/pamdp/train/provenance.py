"""Where a reinforced policy comes from: who taught it, and which cloned policy it was before.

Owns the record `origin.json` of a run of `pamdp train online`. Knows nothing of loops. A comparison reads it before it
takes a policy that was trained elsewhere: settings do not say which users a share or a count came to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from pamdp.errors import RunError
from pamdp.files import write_json
from pamdp.models.policy import Policy
from pamdp.train.factory import policy_weights
from pamdp.types import Dialogue

NAME = "origin.json"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a policy was trained from.

    Attributes:
      users: who taught it, each once, by name.
      dialogues: ids of their records, in the order in which they take turns.
      policy: sha256 of the cloned policy's weights.
    """

    users: tuple[str, ...]
    dialogues: tuple[str, ...]
    policy: str


_ORIGIN = TypeAdapter(Provenance)


def provenance_of(policy: Policy, dialogues: Sequence[Dialogue], backbone: str) -> Provenance:
    """The origin of what POLICY is about to become.

    Args:
      backbone: what cloning changed beside the planner (`clone.backbone`).
    """
    users = tuple(sorted({d.user_id for d in dialogues}))
    return Provenance(users, tuple(d.id for d in dialogues), _digest(policy, backbone))


def write_provenance(path: Path, origin: Provenance) -> None:
    """Store it in the run at PATH, once: a resumed run comes from where it came from."""
    if not (path / NAME).is_file():
        write_json(path / NAME, asdict(origin))


def read_provenance(path: Path) -> Provenance:
    """What is stored in the run at PATH.

    Raises:
      RunError: nothing is, or it is damaged.
    """
    try:
        return _ORIGIN.validate_json((path / NAME).read_bytes())
    except OSError as error:
        raise RunError(f"{path} does not say which users taught it (it has no {NAME}); train it anew") from error
    except ValidationError as error:
        raise RunError(f"{path / NAME} is damaged; train the run anew") from error


def _digest(policy: Policy, backbone: str) -> str:
    digest = hashlib.sha256()
    for group, weights in sorted(policy_weights(policy).items()):
        for name, tensor in sorted(weights.items()):
            digest.update(json.dumps([group, name, list(tensor.shape)]).encode())
            # As bytes: not every kind of number has a counterpart in numpy.
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
