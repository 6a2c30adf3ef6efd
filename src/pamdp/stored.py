"""Records in files: dataclasses as JSON lines, or one JSON value; written whole, and checked when they are read.

Owns what is said of a file that is wrong: file, line and field. Knows nothing of what records mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import TypeAdapter, ValidationError

from pamdp.errors import DataError
from pamdp.files import json_line, write_atomic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def write_records(path: Path, records: Iterable[DataclassInstance]) -> None:
    """Put dataclasses at PATH as JSON lines, atomically: the file is the old one or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(json_line(asdict(record)) for record in records))


def read_records(path: Path, kind: type[T], fix: str = "", appended: bool = False) -> list[T]:
    """The records of a file of JSON lines, all of one KIND.

    Args:
      fix: what to do where the file is missing or wrong.
      appended: lines were written one by one; a last one without its newline was cut short by a kill, and is left out.

    Raises:
      DataError: the file is missing, not UTF-8, or a line is something else; the message names line and field.
    """
    adapter, text = TypeAdapter(kind), read_text(path, fix, appended)
    numbered = enumerate(text.split("\n"), 1)  # splitlines() would also break in a string
    return [_parse(adapter, line, path, number, fix) for number, line in numbered if line.strip()]


def read_record(path: Path, kind: type[T], fix: str = "", change: Callable[[str], str] = str) -> T:
    """The one JSON value of a file, after a CHANGE of its text; else as `read_records`."""
    return _parse(TypeAdapter(kind), change(read_text(path, fix)), path, None, fix)


def read_text(path: Path, fix: str = "", appended: bool = False) -> str:
    """The text of a file, of one that is APPENDED to its whole lines; a DataError where it cannot be read as UTF-8."""
    try:
        content = path.read_bytes()  # a kill may have cut a letter in two
        return (content[: content.rfind(b"\n") + 1] if appended else content).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", path, fix=fix) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path, fix=fix) from error


def _parse(adapter: TypeAdapter[T], text: str, path: Path, line: int | None, fix: str) -> T:
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"{part}." for part in first["loc"])[:-1]
        raise DataError(f"{where}: {first['msg']}" if where else first["msg"], path, line, fix) from error
    except DataError as error:  # a record that refuses its own values
        raise DataError(error.what, path, line, fix or error.fix) from error
