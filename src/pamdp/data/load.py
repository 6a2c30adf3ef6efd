"""The one way into the data: a path goes in, dialogues or preference pairs come out, with an account of the rest.

Owns the order of a reading (files, layout, records, what is left) and what it hands over. Knows no layout; formats.py
does.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pamdp.data.fields import name_for
from pamdp.data.files import data_files, sha256
from pamdp.data.formats import Kind, detect
from pamdp.data.rated import RatedDialogue
from pamdp.data.reading import Intake
from pamdp.data.split import By, TrainTest, split_by_user
from pamdp.errors import ConfigError, DataError
from pamdp.registry import LAYOUTS
from pamdp.types import Dialogue, Persona, PreferencePair

POOL = ("personality.jsonl", "profile.jsonl")
"""Files of ALOE's pool of personas."""
_ONLINE = "`pamdp train online` and `pamdp reproduce table3` talk with them, with online.opening=own"
_ONE: dict[Kind, str] = {
    "dialogues": "dialogue", "pairs": "preference pair", "personas": "persona text", "rated": "rated dialogue",
}  # fmt: skip
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class LoadedItems(Generic[_T]):
    """What a reading hands over: the items, and an account of everything that is not among them.

    Attributes:
      sha256: of the file's bytes; of names and bytes for several files.
      skipped: the faults that were left out, in order; empty unless bad input was skipped.
      repaired: what was mended, merged or left out inside records that were kept, and how often.
    """

    format: str
    sha256: str
    skipped: tuple[DataError, ...]
    repaired: Mapping[str, int]
    items: tuple[_T, ...]

    def __iter__(self) -> Iterator[_T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class Loaded(LoadedItems[Dialogue]):
    """Dialogues and the account of their reading."""

    @property
    def dialogues(self) -> tuple[Dialogue, ...]:
        """All of them, in order."""
        return self.items

    def split(self, by: By = "user", test_share: float = 0.2, seed: int = 0) -> TrainTest:
        """Dialogues to learn from and dialogues of other users to test on; see `split_by_user`."""
        return split_by_user(self.items, test_share, seed, by)


class LoadedPairs(LoadedItems[PreferencePair]):
    """Preference pairs and the account of their reading."""

    @property
    def pairs(self) -> tuple[PreferencePair, ...]:
        """All of them, in order."""
        return self.items


def load_dialogues(path: str | Path, format: str = "auto", skip_bad: bool = False) -> Loaded:
    """All dialogues of a file, of the data files in a folder, or of a data set of the Hugging Face hub.

    Args:
      path: the file, packed or not; the folder; or hf:OWNER/NAME[@REVISION][:SPLIT[:CONFIGURATION]].
      format: the layout's name; "auto" looks at the content. All files have one.
      skip_bad: leave bad records out and count them, instead of stopping at the first.

    Raises:
      ConfigError: there is no such layout.
      DataError: nothing can be read, a record is bad and not to be skipped, or no dialogue is left.
    """
    if is_pool(path):
        raise DataError("a pool of personas, which holds no dialogues", path, fix=_ONLINE)
    return Loaded(*read_all(data_files(Path(path)), "dialogues", format, skip_bad))


def load_pairs(path: str | Path, format: str = "auto", skip_bad: bool = False) -> LoadedPairs:
    """All preference pairs of a file or folder; of dialogues, their labelled turns. Otherwise like `load_dialogues`."""
    return LoadedPairs(*read_all(data_files(Path(path)), "pairs", format, skip_bad))


def load_rated(path: str | Path, format: str = "auto", skip_bad: bool = False) -> tuple[RatedDialogue, ...]:
    """The rated dialogues of an export of feedback; none of data in another layout. Else like `load_dialogues`."""
    files = [] if is_pool(path) else data_files(Path(path))
    if not files or "rated" not in LAYOUTS[detect(files[0]) if format == "auto" else format].makes:
        return ()
    return read_all(files, "rated", format, skip_bad)[-1]


def load_personas(path: str | Path, skip_bad: bool = False) -> LoadedItems[str]:
    """The texts of a file of ALOE's persona pool: JSON strings, one a line. Otherwise like `load_dialogues`.

    Two strings on one line are an error; when bad input is skipped both are taken, and counted as repaired.
    """
    return LoadedItems(*read_all([Path(path)], "personas", "personas", skip_bad))


def is_pool(path: str | Path) -> bool:
    """Whether a folder holds ALOE's pool of personas, and nothing else."""
    # os.path.isdir says no to a path that no system takes; Path.is_dir raises, and the reader has words for it.
    return os.path.isdir(path) and tuple(file.name for file in data_files(Path(path))) == POOL


def load_pool(path: str | Path, seed: int = 0, skip_bad: bool = False, times: int = 1) -> Loaded:
    """Users of a folder's pool as dialogues without turns, all profiles with one personality, then with the next one.

    A profile is one person (aloe.py), so it is profiles that are split; where more users are asked for than there are
    profiles, the same people come again with other personalities.

    Args:
      seed: another seed, other pairs.
      times: how many personalities each profile gets; a ConfigError where there are not so many.
    """
    manners, people = (load_personas(Path(path) / name, skip_bad) for name in POOL)
    personalities, profiles = list(dict.fromkeys(manners)), list(dict.fromkeys(people))
    if times > len(personalities):
        raise ConfigError(
            f"{path} has {len(personalities)} personalities, so each of its {len(profiles)} profiles can be that many "
            f"users, and {times} are asked for; ask for fewer users"
        )
    # An order that is the profile's own and stays what it is when the pool grows.
    ranked = {
        profile: sorted(personalities, key=lambda one: hashlib.sha256(f"{seed}:{profile}:{one}".encode()).digest())
        for profile in profiles
    }
    users = tuple(
        Dialogue(f"{name_for(profile)}/{k + 1}", name_for(profile), Persona(profile, order[k]), ())
        for k in range(times)
        for profile, order in ranked.items()
    )
    repaired = Counter(manners.repaired) + Counter(people.repaired)
    return Loaded("personas", sha256(data_files(Path(path))), (*manners.skipped, *people.skipped), repaired, users)


def read_all(
    files: Sequence[Path], kind: Kind, format: str, skip_bad: bool = False
) -> tuple[str, str, tuple[DataError, ...], Mapping[str, int], tuple[Any, ...]]:
    """What `LoadedItems` holds: all items of one kind of files that have one layout; else as `load_dialogues`."""
    intake, one = Intake(skip_bad), _ONE[kind]
    name, *others = [detect(file) for file in files] if format == "auto" else [format]
    for file, other in zip(files[1:], others, strict=False):
        if other != name:
            what = f"{files[0].name} is in the layout {name!r}, this one in {other!r}"
            raise DataError(what, file, fix="name one of the files")
    layout = LAYOUTS[name]
    if kind not in layout.makes:
        reads = f"load_{next(iter(layout.makes))} reads it"
        raise DataError(f"this file is in the layout {name!r}, which holds no {one}s", files[0], fix=reads)
    items = tuple(item for file in files for item in layout.stream(kind, file, intake))
    if not items:
        path = files[0].parent if len(files) > 1 else files[0]
        if intake.skipped:
            what = f"no {one} is left; bad records: {len(intake.skipped)}, the first at {intake.skipped[0]}"
            raise DataError(what, path, fix="mend the file")
        raise DataError(f"there is no {one} in it", path, fix="check the path")
    return name, sha256(files), tuple(intake.skipped), intake.repaired, items
