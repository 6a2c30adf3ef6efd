"""Writing files so that a kill at any moment leaves the old content or the new one, and JSON lines that survive it.

Owns atomic writes, atomic folders, the torn last line of an append-only file, and locks between processes. Knows
nothing of runs or checkpoints.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias

from pamdp.errors import RunError

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
"""What a JSON file can hold."""

PART = ".part-"
"""How the names of unfinished files and folders start; whatever carries it can be deleted."""


def write_atomic(path: Path, content: str | bytes) -> None:
    """Put CONTENT at PATH: written under a temporary name, synced, renamed."""
    part = _part(path)
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        _sync(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    _sync(path.parent)


def write_json(path: Path, value: Json) -> None:
    """Put VALUE at PATH as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes PATH, whole, when the block ends well, and disappears when it does not.

    A folder that stands at PATH is replaced. Files written in the block are synced before the rename.
    """
    part = _part(path)
    part.mkdir(parents=True)
    try:
        yield part
        for file in [*part.rglob("*"), part]:
            _sync(file)
        if path.exists():
            remove_folder(path)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _sync(path.parent)


def require_replaceable(folder: Path, names: Collection[str]) -> None:
    """A RunError for a folder that `new_folder` could not make, or where it would delete anything but NAMES."""
    if folder.name in ("", ".."):
        raise RunError(f"{folder} cannot be replaced by a new folder; give a name inside it")
    above = next(path for path in folder.absolute().parents if path.exists())
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise RunError(f"{folder} is {'a link' if folder.is_symlink() else 'a file'}; give the name of a folder")
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise RunError(f"{folder} cannot be made: {above} cannot be written; choose another place")
    if folder.exists() and (others := sorted(path.name for path in folder.iterdir() if path.name not in names)):
        raise RunError(f"{folder} would be replaced, and holds {others[0]!r}; choose an empty or a new folder")


def remove_folder(path: Path) -> None:
    """Delete a folder so that a half-deleted one is never met under its own name."""
    part = _part(path, "gone-")
    path.rename(part)
    shutil.rmtree(part)


def sweep(folder: Path) -> None:
    """Delete what killed processes left unfinished in FOLDER; nobody else may be writing there."""
    for part in folder.glob(f"{PART}*"):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()


def lock(path: Path) -> IO[str]:
    """Hold PATH's lock until the returned file is closed or this process dies; a BlockingIOError if another does."""
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def json_line(record: Mapping[str, Json]) -> str:
    """One line of JSON; a float that is not a number becomes null, since JSON has no word for it."""
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n"


def read_json_lines(path: Path) -> list[dict[str, Json]]:
    """All records of a JSON-lines file; a torn last line (a write cut short by a kill) is left out.

    Raises:
      RunError: another line is not a JSON object.
    """
    if not path.is_file():
        return []
    # A line is finished by its newline: whatever follows the last one was cut short.
    lines = path.read_bytes().split(b"\n")[:-1]
    records: list[dict[str, Json]] = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise RunError(f"{path}:{number}: not JSON ({error}); delete this line to go on without it") from error
        if not isinstance(record, dict):
            raise RunError(f"{path}:{number}: not a JSON object; delete this line to go on without it")
        records.append(record)
    return records


def _finite(value: Json) -> Json:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value


def _part(path: Path, word: str = "") -> Path:
    return path.with_name(f"{PART}{word}{path.name}.{os.getpid()}")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
