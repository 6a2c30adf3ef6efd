"""The one way into the data: a path goes in, dialogues or preference pairs come out, with an account of the rest.

Owns the order of a reading: files, format, records, duplicate ids, what is left. Knows no layout; formats.py does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pamdp.data.aloe import persona_text
from pamdp.data.files import data_files, sha256
from pamdp.data.formats import DIALOGUES, PAIRS, PERSONAS, Format, choose
from pamdp.data.loaded import Loaded, LoadedPairs, LoadedTexts
from pamdp.data.reading import Intake, Record, json_lines
from pamdp.errors import DataError
from pamdp.types import Dialogue, PreferencePair

POOL = ("personality.jsonl", "profile.jsonl")
"""Files of ALOE's pool of personas."""
_T = TypeVar("_T")
_ONLINE = "`pamdp train online` and `pamdp reproduce table3` talk with them, with online.opening=own"
_Named = TypeVar("_Named", Dialogue, PreferencePair)


def load_dialogues(path: str | Path, format: str = "auto", skip_bad: bool = False) -> Loaded:
    """All dialogues of a file, or of the data files in a folder.

    Args:
      path: a file, or a folder whose .json, .jsonl and .csv files have one format.
      format: "auto" looks at the content; else aloe, jsonl, prefeval, spc or trl.
      skip_bad: leave bad records out and count them, instead of stopping at the first.

    Raises:
      ConfigError: there is no such format.
      DataError: nothing can be read, a record is bad and not to be skipped, or no dialogue is left.
    """
    if is_pool(path):
        raise DataError("a pool of personas, which holds no dialogues", path, fix=_ONLINE)
    files, intake = data_files(Path(path)), Intake(skip_bad)
    chosen = _common(DIALOGUES, format, files, "dialogues")
    found = _all(chosen, files, intake, Path(path), "dialogue")
    return Loaded(chosen.name, sha256(files), tuple(intake.skipped), intake.repaired, found)


def load_pairs(path: str | Path, format: str = "auto", skip_bad: bool = False) -> LoadedPairs:
    """All preference pairs of a file, or of the data files in a folder; from dialogues, their labelled turns.

    Args:
      path: a file, or a folder whose .json, .jsonl and .csv files have one format.
      format: "auto" looks at the content; else pairs, prefeval-mcq, trl, aloe or jsonl.
      skip_bad: leave bad records out and count them, instead of stopping at the first.

    Raises:
      ConfigError: there is no such format.
      DataError: nothing can be read, a record is bad and not to be skipped, or no pair is left.
    """
    files, intake = data_files(Path(path)), Intake(skip_bad)
    chosen = _common(PAIRS, format, files, "preference pairs")
    found = _all(chosen, files, intake, Path(path), "preference pair")
    return LoadedPairs(chosen.name, sha256(files), tuple(intake.skipped), intake.repaired, found)


def is_pool(path: str | Path) -> bool:
    """Whether a folder holds ALOE's pool of personas, and nothing else."""
    # os.path.isdir says no to a path that no system takes; Path.is_dir raises, and the reader has words for it.
    return os.path.isdir(path) and tuple(file.name for file in data_files(Path(path))) == POOL


def load_personas(path: str | Path, skip_bad: bool = False) -> LoadedTexts:
    """The texts of ALOE's persona pool: JSON strings, one a line.

    Two strings on one line are an error; when bad input is skipped both are taken, and counted as repaired.

    Raises:
      DataError: nothing can be read, a line is bad and not to be skipped, or no text is left.
    """
    files, intake = [Path(path)], Intake(skip_bad)
    found = tuple(stream_texts(files[0], intake))
    _require_some(found, files[0], intake, "persona text")
    return LoadedTexts(PERSONAS, sha256(files), tuple(intake.skipped), intake.repaired, found)


def stream(format: Format[_Named], path: Path, intake: Intake) -> Iterator[_Named]:
    """The items of one file, one after another; faults go to the intake.

    Raises:
      DataError: a record is bad and not to be skipped.
    """
    return _each(format.read(path, intake), format.parse, lambda item: item.id, intake)


def stream_texts(path: Path, intake: Intake) -> Iterator[str]:
    """The texts of a persona pool, one after another; faults go to the intake.

    Raises:
      DataError: a line is bad and not to be skipped.
    """
    return _each(json_lines(path, intake), lambda record: [persona_text(record)], lambda text: "", intake)


def _each(
    records: Iterator[Record], parse: Callable[[Record], Sequence[_T]], name: Callable[[_T], str], intake: Intake
) -> Iterator[_T]:
    """What the records hold; `name` gives an item's id, empty where items have none."""
    while True:
        try:
            record = next(records, None)
            if record is None:
                return
            items = parse(record)
            intake.admit(record, [id for item in items if (id := name(item))])
        except DataError as error:
            intake.refuse(error)
        else:
            yield from items


def _common(formats: Mapping[str, Format[_T]], name: str, files: Sequence[Path], what: str) -> Format[_T]:
    """The one format of all files.

    Raises:
      ConfigError: there is no such format.
      DataError: a file shows no format, or two files show two.
    """
    chosen = choose(formats, name, files[0], what)
    for file in files[1:]:
        other = choose(formats, name, file, what)
        if other is not chosen:
            raise DataError(f"{files[0].name} is in the format {chosen.name!r}, this one in {other.name!r}", file,
                            fix="name one of the files")  # fmt: skip
    return chosen


def _all(format: Format[_Named], files: Sequence[Path], intake: Intake, path: Path, what: str) -> tuple[_Named, ...]:
    found = tuple(item for file in files for item in stream(format, file, intake))
    _require_some(found, path, intake, what)
    return found


def _require_some(found: Sequence[object], path: Path, intake: Intake, what: str) -> None:
    if found:
        return
    if intake.skipped:
        what = f"no {what} is left; bad records: {len(intake.skipped)}, the first at {intake.skipped[0]}"
        raise DataError(what, path, fix="mend the file")
    raise DataError(f"there is no {what} in it", path, fix="check the path")
