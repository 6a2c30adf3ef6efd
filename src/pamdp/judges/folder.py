"""A folder of trained judges: what stands beside the weights, what identifies them, and whom they can judge for.

Owns the refusal of judges that are missing or belong to another backbone, and what to take instead. Knows nothing of
how they judge.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pamdp.errors import ModelError
from pamdp.judges.base import Judge
from pamdp.models.backbone import Backbone

CHOICES = (
    "judge.kind=openai judge.base_url=URL judge.model=NAME (a server; agreement with readers unknown)",
    "judge.kind=local judge.model=NAME (a model of this machine; unknown)",
    "judge.model=likelihood-ratio (needs no training; unknown, and .60 of written pairs on the embedded backbone)",
    "a judge that `pamdp judge train --readings FILE --out DIR --from RUN` fits on this backbone, with "
    "judge.weights=DIR (unknown; on the embedded backbone signals .69, reward-model .62 and "
    "embedded, match, likelihood about .5 of readers' pairs)",
)
"""Who can judge on any backbone, with the share of pairs decided as readers did, as far as it is known
(docs/results.md)."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What makes the judge NAME of a folder of weights; called as every judge's maker is, of those that are SHIPPED."""

    name: str
    shipped: Callable[[], Path]
    load: Callable[[str, Backbone, Path], Judge]

    def __call__(self, backbone: Callable[[], Backbone]) -> Judge:
        """The judge that comes with the package."""
        return self.load(self.name, backbone(), self.shipped())


def read_about(folder: Path, name: str, revision: str, command: str) -> dict[str, Any]:
    """The `config.json` of judges for the backbone NAME; nothing is loaded.

    Raises:
      ModelError: there are none (COMMAND makes them), or they belong to another backbone than the one of REVISION.
    """
    try:
        about: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"no judges in {folder}; `{command}` makes them") from error
    if about["revision"] != revision:
        raise ModelError(
            f"the judges in {folder} belong to backbone {about['backbone']} ({about['revision']}), not to {name} "
            f"({revision}), and no other is taken unasked; choose: {'; or '.join(CHOICES)}"
        )
    return about


def fingerprint_of(folder: Path, backbone: Backbone, *more: Path) -> dict[str, str]:
    """The backbone, and what identifies the weights in a folder of judges and in MORE files."""
    weights = sorted({*folder.glob("*.safetensors"), *more})
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in weights)).hexdigest()[:12]
    return {"backbone": f"{backbone.name}@{backbone.revision}", "weights": digest}
