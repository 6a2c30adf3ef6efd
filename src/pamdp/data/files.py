"""Files and folders of data, and their fingerprint.

Owns which files of a folder are data. Knows nothing of what is in them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pamdp.data.reading import opened
from pamdp.errors import DataError

SUFFIXES = (".json", ".jsonl", ".csv")
_CHUNK = 2**20


def data_files(path: Path) -> list[Path]:
    """The file itself, or the data files that lie directly in a folder, by name.

    Raises:
      DataError: there is no such path, or no data file in the folder.
    """
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
    """The hash of one file's bytes, or of the names and hashes of several.

    Raises:
      DataError: a file cannot be read.
    """
    if len(files) > 1:
        return hashlib.sha256("".join(f"{file.name} {sha256([file])}\n" for file in files).encode()).hexdigest()
    digest = hashlib.sha256()
    with opened(files[0]) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
