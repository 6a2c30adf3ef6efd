"""What a comparison would cost: trainings, replies and verdicts, with or without models and data at hand.

Owns the estimate and its assumptions. Loads no model. Where data are missing, the paper's numbers of turns stand in.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table as Grid

from pamdp.baselines.registry import find
from pamdp.errors import DataError
from pamdp.models.embedded import EMBEDDED
from pamdp.reproduce.cells import Cell, cells_of
from pamdp.reproduce.config import ReproduceConfig
from pamdp.reproduce.tables import TEST_TURNS, Column, Table
from pamdp.reproduce.work import method_seeds, pair_seeds
from pamdp.settings import flatten
from pamdp.train.setup import load_split

ASSUMED: dict[Column, tuple[int, int]] = {
    "ALOE": (27_480 - TEST_TURNS["ALOE"], TEST_TURNS["ALOE"]),
    "PrefEval": (3_500, 1_750),
}
"""Training and test turns where the data are not there: ALOE's as the paper counts them, PrefEval's 1,000 dialogues of
about five turns in three folds."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One method in one cell, over all its seeds.

    Attributes:
      trainings: how often it is trained.
      examples, draws, verdicts: in learning, all trainings together.
      replies: test replies.
      tokens: the most tokens that reading and writing test replies takes.
      judgements: questions to all judges of the evaluation, both orders.
    """

    data: str
    backbone: str
    method: str
    trainings: int
    examples: int
    draws: int
    verdicts: int
    replies: int
    tokens: int
    judgements: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All pieces, what they rest on, and the resolved settings."""

    table: str
    pieces: list[Piece]
    data: dict[str, str]
    weights: dict[str, str]
    settings: dict[str, object]

    def to_json(self) -> str:
        """One JSON document."""
        totals = {name: sum(getattr(p, name) for p in self.pieces) for name in _COUNTS}
        return json.dumps({**asdict(self), "totals": totals}, ensure_ascii=False, default=str)

    def grid(self) -> Grid:
        """For a terminal."""
        grid = Grid(title=f"{self.table}: what it would cost", title_justify="left")
        for name in ("data", "backbone", "method", *_COUNTS):
            grid.add_column(name, justify="right" if name in _COUNTS else "left")
        for piece in self.pieces:
            grid.add_row(piece.data, piece.backbone, piece.method, *(f"{getattr(piece, n):,}" for n in _COUNTS))
        grid.add_section()
        grid.add_row("all", "", "", *(f"{sum(getattr(p, n) for p in self.pieces):,}" for n in _COUNTS))
        return grid

    def facts(self) -> list[str]:
        """What the numbers rest on."""
        return [*(f"{name}: {text}" for name, text in (*self.data.items(), *self.weights.items()))]


_COUNTS = ("trainings", "examples", "draws", "verdicts", "replies", "tokens", "judgements")


def plan(config: ReproduceConfig, table: Table, run: Path) -> Plan:
    """The plan of a comparison.

    Raises:
      ConfigError: a method is unknown.
    """
    pieces, data = [], dict[str, str]()
    for cell in cells_of(config, table, run):
        train, test, data[cell.column] = _turns(cell, config)
        job = config.of_job(cell.model, cell.data, config.seeds[0])
        for name in table.methods(config.methods):
            budget = find(name).budget(job, config.tune, train)
            times = len(method_seeds(cell, name, config.seeds))
            learns = 0 if budget.weights == "none" else times
            most = budget.context + budget.beside + budget.reply
            judged = sum(
                len(pair_seeds(cell, *pair, config.seeds))
                for pair in table.comparisons(config.methods)
                if pair[0] == name
            )
            pieces.append(
                Piece(
                    cell.column, cell.model, name, learns, budget.examples * times, budget.draws * times,
                    budget.verdicts * times, test * times, test * times * most, test * judged * 2 * len(config.judges),
                )
            )  # fmt: skip
    return Plan(table.name, pieces, data, {name: _weights(name) for name in config.models}, flatten(config))


def _turns(cell: Cell, config: ReproduceConfig) -> tuple[int, int, str]:
    """Training turns, test turns, and where these numbers come from."""
    try:
        split = load_split(cell.data.model_copy(update={"split_seed": config.seeds[0] if cell.data.folds else 0}))
    except DataError as error:
        train, test = ASSUMED[cell.column]
        return train, test, f"{train:,} training and {test:,} test turns assumed: {error}"
    parts = []
    for dialogues, limit in ((split.train, config.train_dialogues), (split.test, config.test_dialogues)):
        turns, share = sum(len(d.turns) for d in dialogues), min(1.0, (limit or len(dialogues)) / len(dialogues))
        parts.append(round(turns * share))
    return parts[0], parts[1], f"{parts[0]:,} training and {parts[1]:,} test turns"


def _weights(name: str) -> str:
    """The size of a backbone, as far as its name tells it."""
    found = re.search(r"(\d+(?:\.\d+)?)[bB](?![a-zA-Z])", name)
    billions = 0.135 if name == EMBEDDED else float(found[1]) if found else None
    if billions is None:
        return "size unknown"
    return f"{billions:g} billion weights: {2 * billions:g} GB in bfloat16, {16 * billions:g} GB to train all of them"
