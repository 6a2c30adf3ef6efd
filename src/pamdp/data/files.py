"""Files and folders of data: which there are, their bytes and their fingerprint.

Owns which files of a folder are data, what is packed, and the words for what cannot be read. Knows nothing of what is
in them; hub.py knows the data sets that `datasets` finds.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from pamdp.data.hub import PREFIX, split_files
from pamdp.errors import DataError

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".arrow")
"""Endings of data files; `.gz` may follow."""
_ABOUT = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json")
"""What `datasets` writes beside data, about them."""
_GZIP = b"\x1f\x8b"
_HEAD = 2**16


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """The file, opened for reading bytes; a DataError where it is missing, not a file, or not readable to the end."""
    try:
        if not path.exists():
            fix = f"check the path; a data set of the Hugging Face hub is {PREFIX}OWNER/NAME"
            raise DataError("there is no such file", path, fix=fix if path.suffix == "" else "check the path")
        if not path.is_file():
            raise DataError("this is not a file", path, fix="name a file")
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path, fix="check path and rights") from error


@contextmanager
def unpacked(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    """As `opened`, and what gzip packed is unpacked while it is read, whatever the file is called."""
    with opened(path) as stream:
        packed = stream.read(len(_GZIP)) == _GZIP
        stream.seek(0)
        try:
            yield gzip.GzipFile(fileobj=stream) if packed else stream
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError("what gzip packed is damaged or cut off", path, fix="fetch the file again") from error


def beginning(path: Path) -> bytes:
    """The first line that is not blank, unpacked, or as much of it as tells what the file is; b"" where there is none.

    A DataError as `opened` has them.
    """
    with unpacked(path) as stream:
        while raw := stream.readline(_HEAD):
            if line := raw.removeprefix(codecs.BOM_UTF8).strip():
                return line
    return b""


def stem(path: Path) -> str:
    """The file's name without its endings."""
    return Path(path.name.removesuffix(".gz")).stem


def data_files(path: Path) -> list[Path]:
    """The file itself, the data files that lie directly in a folder, by name, or those of a data set of `datasets`.

    Such a data set is a folder that `save_to_disk` wrote, a copy of one of the Hugging Face hub, or a name on the hub
    (hub.py). A DataError where there is no data, or it has several splits.
    """
    if str(path).startswith(PREFIX):
        return split_files(str(path))
    try:
        if not path.is_dir():
            with opened(path):
                return [path]
        if found := _direct(path):
            return found
        if splits := sorted(folder.parent for folder in path.glob("*/state.json")):
            if len(splits) > 1:
                names = ", ".join(folder.name for folder in splits)
                raise DataError(f"this data set has the splits {names}", path, fix=f"name one, such as {splits[0]}")
            return data_files(splits[0])
        deeper = any(map(_is_data, path.glob("*/*")))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path, fix="check path and rights") from error
    if not deeper:
        raise DataError(f"the folder holds no data ({', '.join(SUFFIXES)})", path, fix="name a folder with such files")
    return split_files(f"{PREFIX}{path}")


def _direct(folder: Path) -> list[Path]:
    return sorted(filter(_is_data, folder.iterdir()))


def _is_data(file: Path) -> bool:
    """Whether its name says so; hidden files, and what `datasets` keeps beside its own, are none."""
    kept = file.name in _ABOUT or (file.name.startswith("cache-") and file.suffix == ".arrow")
    return Path(file.name.removesuffix(".gz")).suffix in SUFFIXES and not file.name.startswith(".") and not kept


def sha256(files: Sequence[Path]) -> str:
    """The hash of one file's bytes, or of the names and hashes of several; a DataError where a file cannot be read."""
    if len(files) > 1:
        return hashlib.sha256("".join(f"{file.name} {sha256([file])}\n" for file in files).encode()).hexdigest()
    with opened(files[0]) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
