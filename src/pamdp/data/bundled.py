"""The sample that comes with the package: original persona dialogues and preference pairs, split by user.

Owns where the sample lies and what its parts are called. Knows nothing of its layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from pamdp.data.files import sha256
from pamdp.data.load import load_dialogues, load_pairs
from pamdp.data.loaded import Loaded, LoadedPairs
from pamdp.errors import ConfigError

Split = Literal["train", "test", "all"]
PairSplit = Literal["train", "test", "all", "valid", "fresh"]
_PARTS: dict[str, tuple[str, ...]] = {"train": ("train",), "test": ("test",), "all": ("train", "test")}
_PAIR_PARTS = {**_PARTS, "valid": ("valid",), "fresh": ("fresh",)}


def load_sample(split: Split = "all") -> Loaded:
    """The sample's dialogues; no user of the test part is in the train part.

    Raises:
      ConfigError: `split` is none of train, test and all.
    """
    with as_file(files("pamdp.data") / "sample") as folder:
        paths = _paths(folder, "dialogues", _PARTS, split)
        found = tuple(dialogue for path in paths for dialogue in load_dialogues(path, "aloe"))
        return Loaded("aloe", sha256(paths), (), {}, found)


def load_sample_pairs(split: PairSplit = "all") -> LoadedPairs:
    """The sample's preference pairs; twins are never parted.

    Args:
      split: "valid" is for choosing a judge's settings and "fresh" for measuring it afterwards; "all" has neither.

    Raises:
      ConfigError: there is no such split.
    """
    with as_file(files("pamdp.data") / "sample") as folder:
        paths = _paths(folder, "pairs", _PAIR_PARTS, split)
        found = tuple(pair for path in paths for pair in load_pairs(path, "pairs"))
        return LoadedPairs("pairs", sha256(paths), (), {}, found)


def _paths(folder: Path, kind: str, parts: Mapping[str, tuple[str, ...]], split: str) -> list[Path]:
    if split not in parts:
        raise ConfigError(f"the sample's {kind} have no split {split!r}; there are: {', '.join(parts)}")
    return [folder / f"{kind}.{part}.jsonl" for part in parts[split]]
