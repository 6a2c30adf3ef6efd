"""The sample that comes with the package: original persona dialogues and preference pairs, split by user.

Owns where the sample lies and what its parts are called. Knows nothing of its layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal, get_args

from pamdp.data.load import Loaded, LoadedPairs, read_all
from pamdp.data.rated import RatedDialogue
from pamdp.data.readings import ReadState, load_read_states
from pamdp.errors import ConfigError

Split = Literal["train", "test", "all"]
PairSplit = Literal["train", "test", "all", "valid", "fresh"]
ReadingSplit = Literal["train", "valid", "test", "rl", "rl-2", "valid-2", "table2"]


def load_sample(split: Split = "all") -> Loaded:
    """The sample's dialogues; no user of the test part is in the train part. A ConfigError where there is no SPLIT."""
    with _parts("dialogues", split, "train", "test") as paths:
        return Loaded(*read_all(paths, "dialogues", "aloe"))


def load_plain(split: Literal["train", "test", "valid", "rl", "all"] = "all") -> Loaded:
    """The plain-talk sample: everyday dialogues in ten manners; "all" is train and test.

    "valid" is for choices; "rl" has further training users, from whom the shipped clone has learned nothing.
    """
    with _parts("plain", split, "train", "test", "valid", "rl") as paths:
        return Loaded(*read_all(paths, "dialogues", "aloe"))


def load_sample_pairs(split: PairSplit = "all") -> LoadedPairs:
    """The sample's preference pairs; twins are never parted. A ConfigError where there is no such SPLIT.

    "valid" is for choosing a judge's settings and "fresh" for measuring it afterwards; "all" has neither.
    """
    with _parts("pairs", split, "train", "test", "valid", "fresh") as paths:
        return LoadedPairs(*read_all(paths, "pairs", "pairs"))


def load_sample_readings(split: ReadingSplit) -> list[ReadState]:
    """What blind readers said of models' replies to the plain-talk sample's users; see the sample's README.

    "rl" are the shipped clone's own replies, drawn and read for a round of reinforcement, "rl-2" those of what came of
    it, and "valid-2" compare what came of these; "table2" compares the methods of that table.
    """
    with _parts("readings", split, *get_args(ReadingSplit)) as paths:
        return [state for path in paths for state in load_read_states(path)]


def load_sample_rated() -> tuple[Loaded, tuple[RatedDialogue, ...]]:
    """The states of the "rl" readings as dialogues, and with what readers made of the replies to them."""
    with _parts("readings", "rl", "rl") as paths:
        rated: tuple[RatedDialogue, ...] = read_all(paths, "rated", "readings")[-1]
        return Loaded(*read_all(paths, "dialogues", "readings")), rated


@contextmanager
def _parts(kind: str, split: str, *known: str) -> Iterator[list[Path]]:
    if split not in (*known, "all"):
        raise ConfigError(f"the sample's {kind} have no split {split!r}; there are: all, {', '.join(known)}")
    with as_file(files("pamdp.data") / "sample") as folder:
        yield [folder / f"{kind}.{part}.jsonl" for part in (known[:2] if split == "all" else (split,))]
