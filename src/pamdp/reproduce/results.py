"""From what is stored to numbers: rates, differences, agreement, texts, and the paper's figures beside them.

Owns what a table's results are, and which differences count as significant. Reads judgements and replies only, so the
same files give the same results; no model and no data set is needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path

from pamdp.baselines.method import Budget
from pamdp.errors import RunError
from pamdp.evaluation.agreement import Agreement, between_judges, between_orders
from pamdp.evaluation.records import Judgement, read_judgements
from pamdp.evaluation.scores import Scored, ScoreReport, read_scores, report_scores, scorer_kappa
from pamdp.evaluation.significance import holm
from pamdp.evaluation.success import Difference, SuccessRate, compare, differences
from pamdp.evaluation.text_metrics import TextReport, describe
from pamdp.reproduce.config import ReproduceConfig
from pamdp.reproduce.grid import Cell, cells_of, read_replies_file
from pamdp.reproduce.tables import Printed, Table
from pamdp.reproduce.work import comparisons_of, method_seeds, pair_seeds, present
from pamdp.rl.metrics import success_rate


@dataclass(frozen=True, slots=True)
class MethodLine:
    """One comparison under one judge.

    Attributes:
      row: ours, over all seeds.
      by_seed: r_w of each seed alone.
      p_holm: the sign-flip p-value, corrected for the number of comparisons of this cell under this judge.
      printed: the paper's figures for these methods and this data, under its own backbones and judges.
    """

    row: SuccessRate
    by_seed: dict[int, float]
    p_holm: float
    printed: tuple[Printed, ...]

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0 and the corrected p-value is below .05: both must say so."""
        return self.row.rate.sign != 0 and self.p_holm < 0.05


@dataclass(frozen=True, slots=True)
class Gap:
    """Two methods on the same states under one judge, with a corrected p-value."""

    difference: Difference
    p_holm: float

    @property
    def significant(self) -> bool:
        """As of a line."""
        return self.difference.rate.sign != 0 and self.p_holm < 0.05


@dataclass(frozen=True, slots=True)
class CellResults:
    """Everything that is known of one cell.

    Attributes:
      scores: of every scorer and method.
      scorers: two scorers, κ of their ratings and of their categories, and how many replies both rated.
      inapplicable: rows of the table that have no results because the data lack what they learn from, and what.
    """

    cell: Cell
    lines: list[MethodLine]
    gaps: list[Gap]
    judges: list[Agreement]
    orders: list[Agreement]
    texts: dict[str, TextReport]
    scores: list[ScoreReport]
    scorers: list[tuple[str, str, float, float, int]]
    inapplicable: dict[str, str]
    budgets: dict[str, Budget]


@dataclass(frozen=True, slots=True)
class Results:
    """A table's results, and how many seeds they rest on."""

    table: Table
    seeds: tuple[int, ...]
    reward: str
    cells: list[CellResults]


def read_results(config: ReproduceConfig, table: Table, run: Path) -> Results:
    """Results of what is stored in a run.

    Raises:
      RunError, DataError: something is missing or damaged; the message names the file.
    """
    cells = [_read(cell, config, table) for cell in cells_of(config, table, run)]
    return Results(table, config.seeds, config.reward, cells)


def _read(cell: Cell, config: ReproduceConfig, table: Table) -> CellResults:
    judgements = [
        judgement
        for judge in config.judges
        for method, baseline in comparisons_of(cell, table, config)
        for seed in pair_seeds(cell, method, baseline, config.seeds)
        for judgement in read_judgements(cell.judged(judge, method, baseline, seed))
    ]
    rows = compare(judgements, n=config.resamples)
    corrected = _by_judge([row.judge for row in rows], [row.p_value for row in rows])
    lines = [
        MethodLine(row, _seeds(row, judgements), p, _printed(row, cell, table))
        for row, p in zip(rows, corrected, strict=True)
    ]
    # Against Vanilla all rows are on one footing; the table's own pairs are lines already.
    found = differences([j for j in judgements if j.baseline == "Vanilla"], n=config.resamples)
    holm = _by_judge([d.judge for d in found], [d.p_value for d in found])
    gaps = [Gap(d, p) for d, p in zip(found, holm, strict=True)]
    scored = {
        name: {method: _scores(cell, name, method, config) for method in present(cell, table, config)}
        for name in config.scorers
    }
    learned, lacking = present(cell, table, config), cell.inapplicable()
    agreement = max(1, config.resamples // 5)
    return CellResults(
        cell, lines, gaps, between_judges(judgements, n=agreement), between_orders(judgements, n=agreement),
        {name: _text(cell, name, config) for name in learned},
        [report_scores(found, config.resamples) for by_method in scored.values() for found in by_method.values()],
        [(a, b, *scorer_kappa(_flat(scored[a]), _flat(scored[b]))) for a, b in combinations(scored, 2)],
        {name: lacking[name] for name in table.methods(config.methods) if name in lacking}, _budgets(cell, learned),
    )  # fmt: skip


def _by_judge(judges: Sequence[str], p_values: Sequence[float]) -> list[float]:
    """Judges are second opinions on one question, not further questions: each has a correction of its own."""
    out = list(p_values)
    for judge in dict.fromkeys(judges):
        places = [i for i, name in enumerate(judges) if name == judge]
        for i, p in zip(places, holm([p_values[i] for i in places]), strict=True):
            out[i] = p
    return out


def _seeds(row: SuccessRate, judgements: Sequence[Judgement]) -> dict[int, float]:
    key = (row.method, row.baseline, row.judge)
    kept = [j for j in judgements if (j.method, j.baseline, j.judge) == key and not j.masked]
    out = {}
    for seed in sorted({j.sample for j in kept}):
        said = [j.outcome for j in kept if j.sample == seed]
        out[seed] = success_rate(said.count("win"), said.count("loss"), said.count("tie"))
    return out


def _printed(row: SuccessRate, cell: Cell, table: Table) -> tuple[Printed, ...]:
    key = (cell.column, row.method, row.baseline)
    return tuple(p for p in table.printed if (p.column, p.method, p.baseline) == key)


def _scores(cell: Cell, scorer: str, method: str, config: ReproduceConfig) -> list[Scored]:
    seeds = method_seeds(cell, method, config.seeds)
    return [one for seed in seeds for one in read_scores(cell.scored(scorer, method, seed))]


def _flat(by_method: dict[str, list[Scored]]) -> list[Scored]:
    return [one for found in by_method.values() for one in found]


def _text(cell: Cell, method: str, config: ReproduceConfig) -> TextReport:
    said = [
        one
        for seed in method_seeds(cell, method, config.seeds)
        for one in read_replies_file(cell.replies(method, seed))
    ]
    return describe([s.text for s in said], [s.nll for s in said], [s.user for s in said], n=config.resamples)


def _budgets(cell: Cell, methods: Sequence[str]) -> dict[str, Budget]:
    file = cell.folder / "budgets.json"
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Budget)}
        return {name: Budget(**{key: value for key, value in stored[name].items() if key in known}) for name in methods}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is missing or damaged: {error!r}; run the same command without --render") from error
