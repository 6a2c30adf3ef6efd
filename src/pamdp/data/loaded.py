"""What a reading hands over: the items, and an account of everything that is not among them.

Owns these records. Knows nothing of how files are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pamdp.errors import DataError
from pamdp.types import Dialogue, PreferencePair


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of a reading beside its items.

    Attributes:
      format: the layout that was read.
      sha256: of the file's bytes; of names and bytes for several files.
      skipped: the faults that were left out, in order; empty unless bad input was skipped.
      repaired: what was mended or left out inside records that were kept, and how often.
    """

    format: str
    sha256: str
    skipped: tuple[DataError, ...]
    repaired: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Loaded(Account):
    """Dialogues and the account of their reading."""

    dialogues: tuple[Dialogue, ...]

    def __iter__(self) -> Iterator[Dialogue]:
        return iter(self.dialogues)

    def __len__(self) -> int:
        return len(self.dialogues)


@dataclass(frozen=True, slots=True)
class LoadedPairs(Account):
    """Preference pairs and the account of their reading."""

    pairs: tuple[PreferencePair, ...]

    def __iter__(self) -> Iterator[PreferencePair]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True, slots=True)
class LoadedTexts(Account):
    """Persona texts and the account of their reading."""

    texts: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)
