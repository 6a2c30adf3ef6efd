"""Bytes to records: reads a file line by line, item by item or row by row, and knows where every fault is.

Owns decoding, how strict JSON is, size limits, and what becomes of a bad record: an error, or a counted skip. Knows
nothing of dialogues; a record is a JSON value or a CSV row with its file and line. Nothing that is read is executed.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

from pydantic import ValidationError

from pamdp.data.columns import MARKS, rows
from pamdp.data.fields import Fields, explain
from pamdp.data.files import beginning, stem, unpacked
from pamdp.errors import DataError
from pamdp.types import Dialogue, PreferencePair

MAX_LINE = 16 * 2**20
"""Bytes in one line: a file without line ends must not fill the memory."""
MAX_DOCUMENT = 256 * 2**20
"""Bytes in a JSON document, which cannot be read line by line."""
BOM = "\ufeff"
"""What some editors write before the first character."""
Shape = Literal["lines", "array", "table"]
"""What a layout's records are: JSON values, in lines or an array as the file has them; or CSV rows under a header."""
_ONE_A_LINE = "write one JSON object on each line, or skip bad input to leave this line out"
_APART = "put each on a line of its own, or skip bad input to take them one by one"
_Fields = TypeVar("_Fields", bound=Fields)


@dataclass(frozen=True, slots=True)
class Record:
    """One value as it stands in a file.

    Attributes:
      line: where it starts, from 1; in a file without lines, the number of the row.
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
        return f"{stem(self.path)}:{self.place}"

    def fault(self, what: str, fix: str = "") -> DataError:
        """The error that says `what` is wrong at this record."""
        return DataError(what, self.path, self.line, fix)

    def read(self, kind: type[_Fields]) -> _Fields:
        """The record as KIND describes it; a DataError names the first field that is wrong."""
        try:
            return kind.model_validate(self.value, context=self.notes)
        except ValidationError as error:
            raise self.fault(*explain(error)) from None


@dataclass(slots=True)
class Intake:
    """What one reading took in, left out and repaired; it decides whether a fault stops the reading."""

    skip_bad: bool = False
    skipped: list[DataError] = field(default_factory=list)
    mended: list[DataError] = field(default_factory=list)
    repaired: Counter[str] = field(default_factory=Counter)
    seen: set[tuple[type, str]] = field(default_factory=set)

    def refuse(self, error: DataError, mended: bool = False) -> None:
        """Count the fault, as mended where it costs no record, and go on; raise it where bad input is not skipped."""
        if not self.skip_bad:
            raise error
        if mended:
            self.repaired[error.what] += 1
        (self.mended if mended else self.skipped).append(error)

    def admit(self, record: Record, items: Sequence[Dialogue | PreferencePair | str]) -> None:
        """Enter what a record brings, and its repairs; a DataError where an id has come before."""
        for name in ((type(item), item.id) for item in items if not isinstance(item, str)):
            if name in self.seen:
                raise record.fault(f"the id {name[1]!r} occurs twice", "give every record an id of its own")
            self.seen.add(name)
        self.repaired.update(record.notes)


def raw_lines(path: Path, intake: Intake) -> Iterator[tuple[int, bytes]]:
    """Every line of bytes with its number from 1; a line beyond MAX_LINE is refused."""
    with unpacked(path) as stream:
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


def _json_lines(path: Path, intake: Intake) -> Iterator[Record]:
    """Several values on one line are a fault; when bad input is skipped they are taken one by one, as repaired."""
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
                intake.refuse(DataError("more than one JSON value on the line", path, number, _APART), mended=True)
            taken += 1
            yield Record(value, path, number, str(number) if taken == 1 else f"{number}.{taken}")
            at = _blank_end(text, end)


def _json_items(path: Path, intake: Intake) -> Iterator[Record]:
    """After an item that is not JSON nobody can tell where the next one starts: the rest of the file is one fault."""
    with unpacked(path) as stream:
        raw = stream.read(MAX_DOCUMENT + 1)
    if len(raw) > MAX_DOCUMENT:
        raise DataError(f"larger than {MAX_DOCUMENT:,} bytes", path, fix="split it, or write one JSON object a line")
    try:
        text = raw.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError("a byte of this line is not UTF-8", path, line, "save the file as UTF-8") from None
    at = _blank_end(text, 0)
    line, counted, items = text.count("\n", 0, at) + 1, at, 0
    at, fault, fix = _blank_end(text, at + 1), "", "mend the file from this item on"
    while at < len(text) and text[at] != "]" and not fault:
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = decode(text, at)
        except ValueError as error:
            fault = f"not valid JSON: {error}; the rest of the file is left out"
            break
        items += 1
        yield Record(value, path, line, str(items))
        at = _blank_end(text, end)
        if text.startswith(",", at):
            at = _blank_end(text, at + 1)
        elif at < len(text) and text[at] != "]":
            fault = "no comma after this item; the rest of the file is left out"
    if not fault and at == len(text):
        fault, fix = "the JSON array has no end: cut off?", "fetch the file again"
    elif not fault and _blank_end(text, at + 1) < len(text):
        fault, fix = "there is something after the end of the JSON array", "keep one array in the file"
    if fault:
        intake.refuse(DataError(fault, path, line, fix))


def _csv_rows(path: Path, intake: Intake) -> Iterator[Record]:
    """Bytes that are not UTF-8 come through as surrogates, so that the row that holds them is refused and no other."""
    lines = (raw.decode("utf-8", errors="surrogateescape").removeprefix(BOM) for _, raw in raw_lines(path, intake))
    reader = csv.reader(lines, strict=True)
    start, rows = 1, 0
    try:
        for row in reader:
            if start > 1 and row:
                rows += 1
                yield Record(row, path, start, str(rows))
            start = reader.line_num + 1
    except csv.Error as error:
        what = f"not valid CSV: {error}; the rest of the file is left out"
        intake.refuse(DataError(what, path, start, "close every quotation mark; cut off?"))


def _column_rows(path: Path, mark: bytes, intake: Intake) -> Iterator[Record]:
    """Rows of a Parquet or Arrow file; after one that cannot be read, the rest of the file is one fault."""
    number = 0
    try:
        for number, row in enumerate(rows(path, mark), 1):
            yield Record(row, path, number, str(number))
    except ValueError as error:
        what = (
            f"row {number + 1} cannot be read: {' '.join(str(error).split())[:200]}; the rest of the file is left out"
        )
        intake.refuse(DataError(what, path, number + 1, "fetch or write the file again"))


def records(path: Path, intake: Intake, shape: Shape = "lines") -> Iterator[Record]:
    """The records of a file, each with the line on which it starts: JSON values, or the lists of a table's cells.

    The content says how JSON values are held: one a line, in one array, or in the rows of a Parquet or Arrow file.
    Blank lines and the header of a table are nothing. A DataError where the file cannot be read, or something in it is
    bad and the intake does not skip it.
    """
    if shape == "table":
        return _csv_rows(path, intake)
    if (start := beginning(path)).startswith(MARKS):
        return _column_rows(path, start, intake)
    return (_json_items if start.startswith(b"[") else _json_lines)(path, intake)


def decode(text: str, at: int = 0) -> tuple[object, int]:
    """One JSON value that starts at `at`, and where it ends; stricter than Python's own reader.

    A ValueError where it is not JSON, NaN or Infinity, has a key twice in one object, or is nested too deeply.
    """
    try:
        value: tuple[object, int] = _DECODER.raw_decode(text, at)
        return value
    except json.JSONDecodeError as error:
        cut = " (cut off?)" if error.pos >= len(text) or "Unterminated" in error.msg else ""
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{error.msg} at {place}{cut}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _blank_end(text: str, at: int) -> int:
    """The first place from `at` on that is not JSON white space."""
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number; null is what JSON has for it")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; Python alone would keep the last of two equal keys without a word."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:40]!r} occurs twice in one object")
    return values


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
