"""The columns of an offline table: one backbone on one data set each, its splits, and who of a table can learn there.

Owns which methods, comparisons and seeds a cell has, and its splits. Knows nothing of how methods learn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pamdp.baselines.latent import find
from pamdp.config import DataConfig
from pamdp.errors import DataError
from pamdp.files import Json
from pamdp.models.chat import ChatEncoder
from pamdp.prompts.render import load
from pamdp.reproduce.config import ReproduceConfig
from pamdp.reproduce.store import AGAIN, read_json, said_file, slug
from pamdp.reproduce.tables import DataSet, Table
from pamdp.stored import read_records
from pamdp.train.examples import within_context
from pamdp.train.factory import BUNDLED, Split, load_split


@dataclass(frozen=True, slots=True)
class StoredReply:
    """One stored reply; `reference_nll` is that of the data's preferred reply to the same state, if it is known."""

    user: str
    dialogue: str
    turn: int
    reply: str
    reference_nll: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One backbone on one data set."""

    column: DataSet
    model: str
    data: DataConfig
    folder: Path

    @property
    def source(self) -> str:
        """What the data are called where people read it: bundled ones stand in for ALOE, and are not ALOE."""
        return self.data.path if self.data.path in BUNDLED else self.column

    @property
    def title(self) -> str:
        """For headings."""
        return f"{self.source}, {self.model}"

    def inapplicable(self) -> dict[str, str]:
        """Methods that cannot learn from these data, with the reason."""
        return read_json(self.folder / "inapplicable.json")


class Grid:
    """A table under some settings, in a run directory."""

    def __init__(self, config: ReproduceConfig, table: Table, path: Path) -> None:
        self.config, self.table, self.path = config, table, path

    @cached_property
    def cells(self) -> list[Cell]:
        """The columns that have data, for every backbone; a DataError where no column has data."""
        sources: dict[DataSet, DataConfig] = {"ALOE": self.config.aloe, "PrefEval": self.config.prefeval}
        found = [
            Cell(column, model, sources[column], self.path / f"{column}-{slug(model)}")
            for column in self.table.columns
            if sources[column].path
            for model in self.config.models
        ]
        if not found:
            raise DataError(f"{self.table.name} has no data", fix="set aloe.path or prefeval.path")
        return found

    def methods(self, cell: Cell) -> list[str]:
        """Methods that can learn from the cell's data."""
        lacking = cell.inapplicable()
        return [name for name in self.table.methods(self.config.methods) if name not in lacking]

    def pairs(self, cell: Cell) -> list[tuple[str, str]]:
        """Comparisons whose methods both can."""
        lacking = cell.inapplicable()
        return [pair for pair in self.table.comparisons(self.config.methods) if not lacking.keys() & set(pair)]

    def seeds(self, cell: Cell, *methods: str) -> tuple[int, ...]:
        """The seeds of a method or a comparison: one where neither the methods nor the test set have any."""
        all_of_them = cell.data.folds or any(find(name).seeded for name in methods)
        return self.config.seeds if all_of_them else self.config.seeds[:1]

    def replies(self, cell: Cell, method: str, seed: int | None = None) -> list[StoredReply]:
        """A method's replies of all seeds, or those that are compared under one."""
        own = self.seeds(cell, method)
        chosen = own if seed is None else [seed if seed in own else own[0]]
        return [reply for s in chosen for reply in read_records(said_file(cell.folder, method, s), StoredReply, AGAIN)]


def whole_split(cell: Cell, seed: int) -> Split:
    """Training and test dialogues of one seed as they are; see `split_of`."""
    return load_split(cell.data.model_copy(update={"split_seed": seed if cell.data.folds else 0}))


def split_of(cell: Cell, config: ReproduceConfig, seed: int, chat: ChatEncoder) -> Split:
    """Training and test dialogues of one seed, every one cut where its history would outgrow the context.

    Users are split once for all seeds; folds over topics turn with the seed.
    """
    whole = whole_split(cell, seed)
    limit = config.clone.max_context
    # Under the longest instruction of any method.
    train, test = (within_context(chat, part, limit, load("assistant_infer")) for part in (whole.train, whole.test))
    return replace(whole, train=train, test=test)


def users_of(split: Split) -> dict[str, Json]:
    """What a run records of a split."""
    parts = {"train": split.train, "test": split.test}
    users: dict[str, Json] = {name: sorted({d.user_id for d in part}) for name, part in parts.items()}
    turns = {f"{name}_turns": sum(len(d.turns) for d in part) for name, part in parts.items()}
    left_out = {"skipped": split.skipped, "repaired": split.repaired} if split.skipped or split.repaired else {}
    return {**users, **turns, **left_out, "sha256": split.sha256}
