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
from pamdp.reproduce.cells import Cell, Grid
from pamdp.stored import read_records, read_text
from pamdp.train.factory import load_split

SHEET, KEY, VERDICTS = "sheet", "key.json", "verdicts"


class _Line(BaseModel):
    """What a line of a sheet and one of a file of verdicts have in common."""

    state: str


def write_sheets(grid: Grid, states: int) -> list[Path]:
    """Write a sheet of that many STATES of every column and seed beside what is stored; gives their folders.

    Raises:
      ConfigError: a sheet is there already, or there are fewer states.
      DataError: replies are missing.
    """
    made = list[Path]()
    for *_, folder in _places(grid):
        if folder.exists():
            raise ConfigError(f"{folder} is there already, and what may have been read is not replaced; delete it")
    for cell, seed, folder in _places(grid):
        test = load_split(cell.data.model_copy(update={"split_seed": seed if cell.data.folds else 0})).test
        # Whole or not at all: a sheet without its key is of no use.
        with new_folder(folder) as part:
            write_sheet(
                part / SHEET, part / KEY, test, _replies(grid, cell, seed), grid.pairs(cell), states=states, seed=seed
            )
        made.append(folder / SHEET)
    return made


def take_verdicts(grid: Grid, files: Sequence[Path]) -> None:
    """Keep each file of verdicts beside the sheet that it is of.

    Raises:
      DataError: a file is of no sheet of this table, or something in it is wrong; nothing is kept then.
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
    for folder, some in own.items():
        before = [file for file in _kept(folder) if file.name not in {_name(new) for new in some}]
        load_readings(folder / SHEET, folder / KEY, [*before, *some])
    for folder, some in own.items():
        (folder / VERDICTS).mkdir(exist_ok=True)
        for file in some:
            write_atomic(folder / VERDICTS / _name(file), read_text(file))


def readings_of(grid: Grid, cell: Cell) -> dict[int, Readings]:
    """What readers said of a column's replies, by seed; a DataError where methods reply otherwise now."""
    found = dict[int, Readings]()
    for own, seed, folder in _places(grid):
        if own is cell and (files := _kept(folder)):
            found[seed] = load_readings(folder / SHEET, folder / KEY, files)
            require_same_replies(found[seed], _replies(grid, cell, seed))
    return found


def judged(readings: Mapping[int, Readings]) -> list[Judgement]:
    """The verdicts of all readers of a state together, as those of one judge."""
    return [replace(j, sample=seed) for seed, own in readings.items() for j in judgements_of(own)]


def _places(grid: Grid) -> Iterator[tuple[Cell, int, Path]]:
    """Every column and seed of a table, and where its sheet lies."""
    for cell in grid.cells:
        for seed in grid.seeds(cell, *grid.methods(cell)):
            yield cell, seed, cell.folder / f"seed-{seed}" / f"read-{grid.table.name}"


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
