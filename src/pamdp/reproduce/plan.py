"""What a comparison would cost: trainings, replies and verdicts, with or without models and data at hand.

Owns the estimate and its assumptions. Loads no model. Where data are missing, the paper's numbers of turns stand in.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.table import Table as Grid

from pamdp.baselines.registry import find
from pamdp.errors import DataError
from pamdp.models.embedded import EMBEDDED
from pamdp.registry import JUDGES
from pamdp.reproduce.config import ReproduceConfig
from pamdp.reproduce.cost_model import histories, minutes_of
from pamdp.reproduce.grid import Cell, cells_of
from pamdp.reproduce.scoring import QUESTIONS
from pamdp.reproduce.tables import TEST_TURNS, Column, Table
from pamdp.reproduce.work import method_seeds, pair_seeds
from pamdp.settings import flatten
from pamdp.train.factory import Split, load_split

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
      scores: questions to the scorers.
      minutes: on one thread, where it is known what a step costs (cost_model.py).
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
    scores: int
    minutes: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """All pieces, what they rest on, and the resolved settings."""

    table: str
    pieces: list[Piece]
    data: dict[str, str]
    inapplicable: dict[str, dict[str, str]]
    weights: dict[str, str]
    settings: dict[str, object]

    def to_json(self) -> str:
        """One JSON document."""
        totals = {name: sum(getattr(p, name) for p in self.pieces) for name in _COUNTS}
        return json.dumps({**asdict(self), "totals": {**totals, "minutes": self.minutes}}, ensure_ascii=False)

    @property
    def minutes(self) -> float | None:
        """Of all pieces on one thread; None where one of them is not known."""
        known = [p.minutes for p in self.pieces if p.minutes is not None]
        return sum(known) if len(known) == len(self.pieces) else None

    def grids(self) -> list[Grid]:
        """A table for each backbone on each data set, for a terminal of 80 columns; what is nothing is left out."""
        shown = {name: head for name, head in _COUNTS.items() if any(getattr(p, name) for p in self.pieces)}
        found = []
        for data, backbone in dict.fromkeys((p.data, p.backbone) for p in self.pieces):
            own = [p for p in self.pieces if (p.data, p.backbone) == (data, backbone)]
            grid = Grid(title=f"{self.table}: {data}, {backbone}", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
            grid.add_column("method", no_wrap=True)
            for head in (*shown.values(), "min"):
                grid.add_column(head, justify="right", no_wrap=True)
            for piece in own:
                counts = (_round(getattr(piece, n)) for n in shown)
                grid.add_row(piece.method, *counts, _spelled(piece.minutes))
            found.append(grid)
        return found

    def facts(self) -> list[str]:
        """What the numbers rest on."""
        said = [f"{name}: {text}" for name, text in (*self.data.items(), *self.weights.items())]
        for column, lacking in self.inapplicable.items():
            said += [f"{name} is not applicable to {column}: {reason}" for name, reason in lacking.items()]
        totals = (f"{_round(sum(getattr(p, n) for p in self.pieces))} {head}" for n, head in _COUNTS.items())
        said.append(f"all: {', '.join(totals)}")
        if self.minutes is not None:
            said.append(f"{self.minutes:.0f} minutes of one thread; --jobs 2 takes about half of it on two cores")
        return said


_COUNTS = {
    "trainings": "trained", "examples": "examples", "draws": "draws", "verdicts": "verdicts", "replies": "replies",
    "tokens": "tokens", "judgements": "judged", "scores": "scores",
}  # fmt: skip
"""What is counted -> its head in the table."""


def _round(count: int) -> str:
    """A count that is long enough to blur the table in thousands or millions."""
    return f"{count:,}" if count < 1e5 else f"{count / 1e3:,.0f}k" if count < 1e7 else f"{count / 1e6:,.1f}M"


def _spelled(minutes: float | None) -> str:
    return "?" if minutes is None else f"{minutes:.1f}"


def plan(config: ReproduceConfig, table: Table, run: Path) -> Plan:
    """The plan of a comparison.

    Raises:
      ConfigError: a method is unknown.
    """
    pieces, data, inapplicable = list[Piece](), dict[str, str](), dict[str, dict[str, str]]()
    for cell in cells_of(config, table, run):
        split, train, test, length, data[cell.source] = _turns(cell, config)
        job = config.of_job(cell.model, cell.data, config.seeds[0])
        methods = {name: find(name) for name in table.methods(config.methods)}
        lacking = {name: reason for name, m in methods.items() if split and (reason := m.lacks(split.train))}
        inapplicable[cell.source] = lacking
        pairs = [pair for pair in table.comparisons(config.methods) if not lacking.keys() & set(pair)]
        for name in (name for name in methods if name not in lacking):
            budget = methods[name].budget(job, config.tune, train)
            times = len(method_seeds(cell, name, config.seeds))
            learns = 0 if budget.weights == "none" else times
            most = budget.context + budget.beside + budget.reply
            judged = sum(len(pair_seeds(cell, *pair, config.seeds)) for pair in pairs if pair[0] == name)
            scores = test * times * len(config.scorers) * len(QUESTIONS[cell.column])
            questions = test * judged * 2 * len(config.judges)
            here = questions if set(config.judges) <= set(JUDGES) else 0
            minutes = minutes_of(name, cell.model, budget, test, here // times, length)
            pieces.append(
                Piece(
                    cell.source, cell.model, name, learns, budget.examples * times, budget.draws * times,
                    budget.verdicts * times, test * times, test * times * most, questions, scores,
                    None if minutes is None else minutes * times,
                )
            )  # fmt: skip
    weights = {name: _weights(name) for name in config.models}
    return Plan(table.name, pieces, data, inapplicable, weights, flatten(config))


def _turns(cell: Cell, config: ReproduceConfig) -> tuple[Split | None, int, int, float, str]:
    """The split if the data are there, training turns, test turns, a history's mean length, and what these rest on."""
    limit = config.clone.max_context
    try:
        split = load_split(cell.data.model_copy(update={"split_seed": config.seeds[0] if cell.data.folds else 0}))
    except DataError as error:
        train, test = ASSUMED[cell.column]
        return None, train, test, limit / 2, f"{train:,} training and {test:,} test turns assumed: {error}"
    learned, tested = histories(split.train, limit), histories(split.test, limit)
    length = sum((*learned, *tested)) / max(len(learned) + len(tested), 1)
    what = f"{len(learned):,} training and {len(tested):,} test turns, histories of {length:.0f} tokens, about"
    return split, len(learned), len(tested), length, what


def _weights(name: str) -> str:
    """The size of a backbone, as far as its name tells it."""
    found = re.search(r"(\d+(?:\.\d+)?)[bB](?![a-zA-Z])", name)
    billions = 0.135 if name == EMBEDDED else float(found[1]) if found else None
    if billions is None:
        return "size unknown"
    return f"{billions:g} billion weights: {2 * billions:g} GB in bfloat16, {16 * billions:g} GB to train all of them"
