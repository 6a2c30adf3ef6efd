"""Records of files that are not one value a line: JSON arrays and CSV tables.

Owns item and row numbers in them. Knows nothing of what the items mean.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from pamdp.data.reading import BOM, MAX_DOCUMENT, Intake, Record, blank_end, decode, opened, raw_lines
from pamdp.errors import DataError


def json_items(path: Path, intake: Intake) -> Iterator[Record]:
    """The items of a JSON array, each with the line on which it starts.

    After an item that is not JSON nobody can tell where the next one starts: the rest of the file is one fault.

    Raises:
      DataError: the file is not UTF-8, too large or not an array, or an item is not JSON and bad input is not skipped.
    """
    text = _document(path)
    at = blank_end(text, 0)
    if at == len(text) or text[at] != "[":
        raise DataError("this is not a JSON array", path, text.count("\n", 0, at) + 1, "the file must be [item, ...]")
    line, counted, items = 1, 0, 0
    at = blank_end(text, at + 1)
    while at < len(text) and text[at] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = decode(text, at)
        except ValueError as error:
            what = f"not valid JSON: {error}; the rest of the file is left out"
            return intake.refuse(DataError(what, path, line, "mend the file from this item on"))
        items += 1
        yield Record(value, path, line, str(items))
        at = blank_end(text, end)
        if at < len(text) and text[at] == ",":
            at = blank_end(text, at + 1)
        elif at < len(text) and text[at] != "]":
            what = "no comma after this item; the rest of the file is left out"
            return intake.refuse(DataError(what, path, line, "mend the file from this item on"))
    if at == len(text):
        return intake.refuse(DataError("the JSON array has no end: cut off?", path, line, "fetch the file again"))
    if blank_end(text, at + 1) < len(text):
        what = "there is something after the end of the JSON array"
        intake.refuse(DataError(what, path, line, "keep one array in the file"))


def _document(path: Path) -> str:
    with opened(path) as stream:
        raw = stream.read(MAX_DOCUMENT + 1)
    if len(raw) > MAX_DOCUMENT:
        raise DataError(f"larger than {MAX_DOCUMENT:,} bytes", path, fix="split it, or write one JSON object a line")
    try:
        return raw.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError("a byte of this line is not UTF-8", path, line, "save the file as UTF-8") from None


def csv_rows(path: Path, intake: Intake) -> Iterator[Record]:
    """The rows of a CSV table without its header, each with the line on which it starts; its value is a list of texts.

    Bytes that are not UTF-8 come through as surrogates, so that the row that holds them is refused and no other.

    Raises:
      DataError: the file cannot be read, or is not CSV from some row on and bad input is not skipped.
    """
    reader = csv.reader(_decoded(path, intake), strict=True)
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


def _decoded(path: Path, intake: Intake) -> Iterator[str]:
    for number, raw in raw_lines(path, intake):
        text = raw.decode("utf-8", errors="surrogateescape")
        yield text.removeprefix(BOM) if number == 1 else text
