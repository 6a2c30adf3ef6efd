"""Bytes to records: reads a file line by line, item by item or row by row, and knows where every fault is.

Owns decoding, how strict JSON is, size limits, and what becomes of a bad record: an error, or a counted skip. Knows
nothing of dialogues; a record is a JSON value or a CSV row with its file and line. Nothing that is read is executed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

from pamdp.errors import DataError

MAX_LINE = 16 * 2**20
"""Bytes in one line: a file without line ends must not fill the memory."""
MAX_DOCUMENT = 256 * 2**20
"""Bytes in a JSON document, which cannot be read line by line."""
BOM = "\ufeff"
"""What some editors write before the first character."""

_ONE_A_LINE = "write one JSON object on each line, or skip bad input to leave this line out"
_APART = "put each on a line of its own, or skip bad input to take them one by one"


@dataclass(frozen=True, slots=True)
class Record:
    """One value as it stands in a file.

    Attributes:
      line: where it starts, from 1.
      place: what tells it from the file's other records: the line, or the item's number.
      notes: repairs that count once the record is accepted.
    """

    value: object
    path: Path
    line: int
    place: str
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """An id for what has none of its own: the file's name and the place in it."""
        return f"{self.path.stem}:{self.place}"

    def fault(self, what: str, fix: str = "") -> DataError:
        """The error that says `what` is wrong at this record."""
        return DataError(what, self.path, self.line, fix)


@dataclass(slots=True)
class Intake:
    """What one reading took in, left out and repaired; it decides whether a fault stops the reading."""

    skip_bad: bool = False
    skipped: list[DataError] = field(default_factory=list)
    mended: list[DataError] = field(default_factory=list)
    repaired: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)

    def refuse(self, error: DataError) -> None:
        """Count the fault and go on, or stop.

        Raises:
          DataError: the same error, when bad input is not to be skipped.
        """
        if not self.skip_bad:
            raise error
        self.skipped.append(error)

    def mend(self, error: DataError) -> None:
        """Count a fault that costs no record and go on, or stop.

        Raises:
          DataError: the same error, when bad input is not to be skipped.
        """
        if not self.skip_bad:
            raise error
        self.mended.append(error)
        self.repaired[error.what] += 1

    def admit(self, record: Record, ids: list[str]) -> None:
        """Enter the ids that a record brings, and its repairs.

        Raises:
          DataError: one of the ids was there before.
        """
        for name in ids:
            if name in self.seen:
                raise record.fault(f"the id {name!r} occurs twice", "give every record an id of its own")
            self.seen.add(name)
        self.repaired.update(record.notes)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file, opened for reading bytes; what fails while it is read fails as a DataError too.

    Raises:
      DataError: it is missing, not a file, or cannot be read to the end.
    """
    try:
        if not path.exists():
            raise DataError("there is no such file", path, fix="check the path")
        if not path.is_file():
            raise DataError("this is not a file", path, fix="name a file")
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path, fix="check path and rights") from error


def raw_lines(path: Path, intake: Intake) -> Iterator[tuple[int, bytes]]:
    """Every line of bytes with its number from 1; a line beyond MAX_LINE is refused.

    Raises:
      DataError: the file cannot be read, or a line is too long and bad input is not skipped.
    """
    with opened(path) as stream:
        number = 0
        while raw := stream.readline(MAX_LINE + 1):
            number += 1
            if len(raw) <= MAX_LINE:
                yield number, raw
                continue
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(MAX_LINE)
            what = f"the line is longer than {MAX_LINE:,} bytes"
            intake.refuse(DataError(what, path, number, "write one record on each line"))


def json_lines(path: Path, intake: Intake) -> Iterator[Record]:
    """Every JSON value of a file that holds one on each line; blank lines are nothing.

    Several values on one line are a fault. When bad input is skipped they are taken one by one and counted as repaired.

    Raises:
      DataError: a line is not UTF-8 or not JSON, or holds several values, and bad input is not skipped.
    """
    for number, raw in raw_lines(path, intake):
        try:
            text = raw.decode("utf-8").removeprefix(BOM).strip()
        except UnicodeDecodeError as error:
            what = f"byte {error.start + 1} of the line is not UTF-8"
            intake.refuse(DataError(what, path, number, "save the file as UTF-8"))
            continue
        at = taken = 0
        while at < len(text):
            try:
                value, end = decode(text, at)
            except ValueError as error:
                intake.refuse(DataError(f"not valid JSON: {error}", path, number, _ONE_A_LINE))
                break
            if not at and end < len(text):
                intake.mend(DataError("more than one JSON value on the line", path, number, _APART))
            taken += 1
            yield Record(value, path, number, str(number) if taken == 1 else f"{number}.{taken}")
            at = blank_end(text, end)


def blank_end(text: str, at: int) -> int:
    """The first place from `at` on that is not JSON white space."""
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def decode(text: str, at: int = 0) -> tuple[object, int]:
    """One JSON value that starts at `at`, and where it ends; stricter than Python's own reader.

    Raises:
      ValueError: not JSON, NaN or Infinity, a key that occurs twice in one object, or nested too deeply.
    """
    try:
        value: object
        value, end = _DECODER.raw_decode(text, at)
        return value, end
    except json.JSONDecodeError as error:
        cut = " (cut off?)" if error.pos >= len(text) or "Unterminated" in error.msg else ""
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{error.msg} at {place}{cut}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; Python alone would keep the last of two equal keys without a word."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:40]!r} occurs twice in one object")
    return values


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
