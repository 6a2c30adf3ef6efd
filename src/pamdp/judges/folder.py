"""A folder of trained judges: what stands beside the weights, and what identifies them.

Owns the refusal of judges that are missing or belong to another backbone. Knows nothing of which judges there are.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pamdp.errors import ModelError
from pamdp.models.backbone import Backbone


def read_about(folder: Path, backbone: Backbone, command: str) -> dict[str, Any]:
    """The `config.json` of judges for BACKBONE; a ModelError, with the COMMAND that makes them, where none are."""
    try:
        about: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"no judges in {folder}; `{command}` makes them") from error
    if about["revision"] != backbone.revision:
        raise ModelError(
            f"the judges in {folder} belong to backbone {about['backbone']} ({about['revision']}), not to "
            f"{backbone.name} ({backbone.revision}); train judges for it with `{command}`"
        )
    return about


def fingerprint_of(folder: Path, backbone: Backbone) -> dict[str, str]:
    """The backbone, and what identifies the weights in a folder of judges."""
    digest = hashlib.sha256(b"".join(f.read_bytes() for f in sorted(folder.glob("*.safetensors")))).hexdigest()[:12]
    return {"backbone": f"{backbone.name}@{backbone.revision}", "weights": digest}
