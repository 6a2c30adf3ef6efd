"""Blind readers of an offline table: sheets of the replies that it stored, and what readers said, as one judge more.

Owns where sheets, keys and verdicts lie: one sheet for every column and seed, which hides who wrote what as every sheet
does. Loads no model. Knows nothing of how a page shows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel

from pamdp.errors import ConfigError, DataError
from pamdp.evaluation.reading_sheet import write_sheet
from pamdp.evaluation.readings import Readings, judgements_of, load_readings, require_same_replies
from pamdp.evaluation.records import Judgement
from pamdp.files import new_folder, write_atomic
from pamdp.models.recorded import Replies
from pamdp.reproduce.cells import Cell, Grid, whole_split
from pamdp.stored import read_records, read_text

SHEET, KEY, VERDICTS = "sheet", "key.json", "verdicts"


class _Line(BaseModel):
    """What a line of a sheet and one of a file of verdicts have in common."""

    state: str


def write_sheets(grid: Grid, states: int) -> list[Path]:
    """Write a sheet of that many STATES of every column and seed that has none; gives the folders of the new ones.

    Raises:
      ConfigError: all have one, or there are fewer states.
      DataError: replies are missing.
    """
    missing = [place for place in _places(grid) if not place[-1].exists()]
    if not missing:
        raise ConfigError(
            f"{grid.path} has all sheets of {grid.table.name}, and what may have been read is not replaced"
        )
    for cell, seed, folder in missing:
        # Whole or not at all: a sheet without its key is of no use.
        with new_folder(folder) as part:
            test, replies = whole_split(cell, seed).test, _replies(grid, cell, seed)
            write_sheet(part / SHEET, part / KEY, test, replies, grid.pairs(cell), states=states, seed=seed)
    return [folder / SHEET for *_, folder in missing]


def take_verdicts(grid: Grid, files: Sequence[Path]) -> None:
    """Keep each file of verdicts beside the sheet that it is of.

    Raises:
      ConfigError: no sheet of this table was written.
      DataError: a file is of none of them, something in it is wrong, or methods reply otherwise now; nothing is kept.
    """
    sheets = {folder: _states(folder / SHEET / "sheet.jsonl") for *_, folder in _places(grid) if folder.is_dir()}
    if not sheets:
        raise ConfigError(f"{grid.path} has no sheet of {grid.table.name}; write one with --sheet first")
    own = dict[Path, list[Path]]()
    for file in files:
        said = _states(file)
        found = [folder for folder, states in sheets.items() if said & states]
        if len(found) != 1:
            raise DataError(f"no verdicts on one sheet of {grid.table.name}", file, fix="one file is of one sheet")
        own.setdefault(found[0], []).append(file)
    for cell, seed, folder in _places(grid):
        if some := own.get(folder):
            known = {_name(file) for file in some}
            _read(grid, cell, seed, folder, [*(file for file in _kept(folder) if file.name not in known), *some])
    for folder, some in own.items():
        (folder / VERDICTS).mkdir(exist_ok=True)
        for file in some:
            write_atomic(folder / VERDICTS / _name(file), read_text(file))


def readings_of(grid: Grid, cell: Cell) -> dict[int, Readings]:
    """What readers said of a column's replies, by seed; a DataError where methods reply otherwise now."""
    return {
        seed: _read(grid, own, seed, folder, files)
        for own, seed, folder in _places(grid)
        if own is cell and (files := _kept(folder))
    }


def judged(readings: Mapping[int, Readings]) -> list[Judgement]:
    """The verdicts of all readers of a state together, as those of one judge."""
    return [replace(j, sample=seed) for seed, own in readings.items() for j in judgements_of(own)]


def _places(grid: Grid) -> Iterator[tuple[Cell, int, Path]]:
    """Every column and seed of a table, and where its sheet lies."""
    for cell in grid.cells:
        for seed in grid.seeds(cell, *grid.methods(cell)):
            yield cell, seed, cell.folder / f"seed-{seed}" / f"read-{grid.table.name}"


def _read(grid: Grid, cell: Cell, seed: int, folder: Path, files: Sequence[Path]) -> Readings:
    """FILES of verdicts on the sheet in FOLDER, which must be of what the methods reply."""
    found = load_readings(folder / SHEET, folder / KEY, files)
    require_same_replies(found, _replies(grid, cell, seed))
    return found


def _replies(grid: Grid, cell: Cell, seed: int) -> dict[str, Replies]:
    return {
        name: {(s.dialogue, s.turn): s.reply for s in grid.replies(cell, name, seed)} for name in grid.methods(cell)
    }


def _kept(folder: Path) -> list[Path]:
    return sorted((folder / VERDICTS).glob("*.jsonl"))


def _name(file: Path) -> str:
    """By its content, so that the same file is not kept twice."""
    return f"{hashlib.sha256(read_text(file).encode()).hexdigest()[:12]}.jsonl"


def _states(file: Path) -> set[str]:
    return {line.state for line in read_records(file, _Line)}
