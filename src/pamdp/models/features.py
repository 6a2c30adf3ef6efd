"""Features that never change, computed once and kept: H(h) of states, means of replies.

Owns a folder of small safetensors, one for each key. Knows nothing of what the numbers mean: who asks names everything
that they depend on (the model's revision, the layer, the text).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from pamdp.checkpoint import load_tensors, save_tensors
from pamdp.errors import ModelError
from pamdp.files import PART


class FeatureStore:
    """Tensors by key, on disk in a folder; without one nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, key: Sequence[object], compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of KEY, computed if they are not there (or not readable)."""
        if self.folder is None:
            return compute()
        digest = hashlib.sha256("\x1f".join(map(repr, key)).encode()).hexdigest()
        path = self.folder / digest[:2] / f"{digest}.safetensors"
        if path.is_file():
            try:
                return load_tensors(path)
            except ModelError:
                path.unlink(missing_ok=True)
        value = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{PART}{path.name}.{os.getpid()}")
        save_tensors(part, value)
        os.replace(part, path)
        return value
