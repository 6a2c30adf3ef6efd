"""Files and folders of data: which there are, their bytes and their fingerprint.

Owns which files of a folder are data, and the words for what cannot be read. Knows nothing of what is in them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from pamdp.errors import DataError

SUFFIXES = (".json", ".jsonl", ".csv")


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """The file, opened for reading bytes; a DataError where it is missing, not a file, or not readable to the end."""
    try:
        if not path.exists():
            raise DataError("there is no such file", path, fix="check the path")
        if not path.is_file():
            raise DataError("this is not a file", path, fix="name a file")
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path, fix="check path and rights") from error


def data_files(path: Path) -> list[Path]:
    """The file itself, or the data files that lie directly in a folder, by name; a DataError where there is none."""
    try:
        if not path.is_dir():
            with opened(path):
                return [path]
        found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path, fix="check path and rights") from error
    if not found:
        raise DataError(f"the folder holds no data ({', '.join(SUFFIXES)})", path, fix="name a folder with such files")
    return found


def sha256(files: Sequence[Path]) -> str:
    """The hash of one file's bytes, or of the names and hashes of several; a DataError where a file cannot be read."""
    if len(files) > 1:
        return hashlib.sha256("".join(f"{file.name} {sha256([file])}\n" for file in files).encode()).hexdigest()
    with opened(files[0]) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
