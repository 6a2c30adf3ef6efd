"""The sample that comes with the package: original persona dialogues and preference pairs, split by user.

Owns where the sample lies and what its parts are called. Knows nothing of its layout.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from pamdp.data.files import sha256
from pamdp.data.load import load_dialogues, load_pairs
from pamdp.data.loaded import Loaded, LoadedPairs
from pamdp.errors import ConfigError

Split = Literal["train", "test", "all"]
_PARTS: dict[str, tuple[str, ...]] = {"train": ("train",), "test": ("test",), "all": ("train", "test")}


def load_sample(split: Split = "all") -> Loaded:
    """The sample's dialogues; no user of the test part is in the train part.

    Raises:
      ConfigError: `split` is none of train, test and all.
    """
    with as_file(files("pamdp.data") / "sample") as folder:
        paths = _paths(folder, "dialogues", split)
        found = tuple(dialogue for path in paths for dialogue in load_dialogues(path, "aloe"))
        return Loaded("aloe", sha256(paths), (), {}, found)


def load_sample_pairs(split: Split = "all") -> LoadedPairs:
    """The sample's preference pairs; twins are never parted.

    Raises:
      ConfigError: `split` is none of train, test and all.
    """
    with as_file(files("pamdp.data") / "sample") as folder:
        paths = _paths(folder, "pairs", split)
        found = tuple(pair for path in paths for pair in load_pairs(path, "pairs"))
        return LoadedPairs("pairs", sha256(paths), (), {}, found)


def _paths(folder: Path, kind: str, split: str) -> list[Path]:
    if split not in _PARTS:
        raise ConfigError(f"the sample has no split {split!r}; there are: {', '.join(_PARTS)}")
    return [folder / f"{kind}.{part}.jsonl" for part in _PARTS[split]]
