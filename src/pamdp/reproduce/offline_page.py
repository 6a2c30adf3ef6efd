"""From stored replies, judgements and scores to the page of an offline table, the paper's figures beside ours.

Owns what the results are. Reads files only, so the same files give the same page; no model and no data set is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import combinations
from typing import Any

from pamdp.evaluation.agreement import between_judges, between_orders
from pamdp.evaluation.reading_sheet import QUESTIONS
from pamdp.evaluation.reading_tables import between_readers, grades, judges_with_readers
from pamdp.evaluation.readings import Readings
from pamdp.evaluation.records import Judgement, grouped, read_judgements
from pamdp.evaluation.scores import Scored, report_scores, scorer_kappa
from pamdp.evaluation.success import compare, differences
from pamdp.evaluation.tables import TidyTable, Write, coloured, measured, p_text, signed
from pamdp.evaluation.text_metrics import describe
from pamdp.reproduce.cells import Cell, Grid
from pamdp.reproduce.figures import rates, shares
from pamdp.reproduce.page import COMPARED, Page, about, corrected, findings
from pamdp.reproduce.read import judged, readings_of
from pamdp.reproduce.store import AGAIN, read_json, verdict_file
from pamdp.reproduce.tables import VANILLA, printed
from pamdp.stored import read_records

HIDDEN: dict[str, Write] = dict.fromkeys(("users", "soft", "printed", "not_applicable"))
MAIN: dict[str, Write] = {
    "r_w": measured, "p": p_text, "p_holm": p_text, "by_seed": lambda found: " ".join(map(signed, found.values())),
    "paper": lambda text: text or "not printed", **HIDDEN,
}  # fmt: skip
SHOWN: dict[str, Write] = {
    **dict.fromkeys(("seeds", "masked", "p", "significant", "by_seed", "paper")), "p_holm": p_text, **HIDDEN,
    "printed": lambda some: " ".join(signed(p["rate"]) for p in some) or "none",
}  # fmt: skip
NOTE = (
    "r_w = (wins − losses) / (wins + losses + ties), Eq. 15, every comparison judged in both orders. Intervals are "
    "bootstrapped over users, all seeds of a user together. Significant: the interval excludes 0 and the sign-flip "
    "p-value, corrected by Holm for all comparisons of a judge in this cell, is below .05. The paper's figures are "
    "those it prints, for other backbones, test sets and judges: a reference, not a goal."
)


def offline_page(grid: Grid) -> Page:
    """The page of what is stored in a run; a DataError names a file that is missing or damaged."""
    table, config = grid.table, grid.config
    parts, sentences = dict[str, list[dict[str, Any]]](), list[str]()
    readers = list[str]()
    for cell in grid.cells:
        readings = readings_of(grid, cell)
        readers += [f"{cell.title}, seed {seed}: {own.read_by}" for seed, own in readings.items()]
        found = _read(grid, cell, readings)
        for name, records in found.items():
            place = {"data": cell.source, "backbone": cell.model}
            parts.setdefault(name, []).extend({**place, **record} for record in records)
        said = findings(
            (found["rows"], "r_w", "is better than {against}", "is worse than {against}"),
            (found["differences"], "difference", "has a higher r_w than {other}", "has a lower r_w than {other}"),
        )
        said += [f"{r['method']} is not applicable: {r['not_applicable']}." for r in found["absent"]]
        sentences += [f"{cell.title}: {sentence}" for sentence in said]
    rows, absent = parts.pop("rows"), parts.pop("absent")
    shown = [r | {"judge": f"judged by {r['judge']}", "r_w": coloured(r["r_w"], clear=r["significant"])} for r in rows]
    return Page(
        table, [NOTE, *readers, *about(config.seeds, config.judge.model)], TidyTable([*rows, *absent], MAIN), sentences,
        {name: TidyTable(records, COMPARED) for name, records in parts.items()},
        {"table": table.name, "seeds": config.seeds, "reward_judge": config.judge.model},
        {"": (shares if table.shares else rates)(table, rows)},
        TidyTable(shown, SHOWN).terminal(table.title, ("data", "backbone", "judge")),
    )  # fmt: skip


def _read(grid: Grid, cell: Cell, readings: Mapping[int, Readings]) -> dict[str, list[dict[str, Any]]]:
    """All records of one cell, by the table that has them."""
    n, methods, scorers, lacking = grid.config.resamples, grid.methods(cell), grid.config.scorers, cell.inapplicable()
    judgements = [
        judgement
        for judge in grid.config.judges
        for pair in grid.pairs(cell)
        for seed in grid.seeds(cell, *pair)
        for judgement in read_judgements(verdict_file(cell.folder, "judged", judge, pair, seed))
    ]
    read = _read_tables(readings, judgements)
    judgements = [*judged(readings), *judgements]
    # Against Vanilla all rows are on one footing; the table's own pairs are lines already.
    gaps = [
        {"method": d.method, "other": d.other, "judge": d.judge, "difference": d.rate, "p": d.p_value}
        for d in differences([j for j in judgements if j.baseline == VANILLA], n=n)
    ]
    scored = {
        (name, method): [
            one
            for seed in grid.seeds(cell, method)
            for one in read_records(verdict_file(cell.folder, "scored", name, (method,), seed), Scored, AGAIN)
        ]
        for name in scorers
        for method in methods
    }
    whole = {name: [one for (by, _), some in scored.items() if by == name for one in some] for name in scorers}
    kappas = ("kappa_of_ratings", "kappa_of_categories", "replies")
    texts = {name: grid.replies(cell, name) for name in methods}
    few, budgets = max(1, n // 5), read_json(cell.folder / "budgets.json", needed=True)
    return {
        "rows": _rows(grid, cell, judgements),
        "absent": [
            {"method": name, "against": "not applicable", "not_applicable": lacking[name]}
            for name in grid.table.methods(grid.config.methods)
            if name in lacking
        ],
        "differences": corrected(gaps, "difference"),
        "agreement": [*map(_fields, (*between_judges(judgements, n=few), *between_orders(judgements, n=few)))],
        **read,
        "texts": [
            {"method": name}
            | _fields(describe([s.reply for s in x], [s.reference_nll for s in x], [s.user for s in x], n=n))
            for name, x in texts.items()
        ],
        "scores": [_fields(report_scores(some, n)) for some in scored.values()],
        "scorers": [
            {"scorer": a, "and": b, **dict(zip(kappas, scorer_kappa(whole[a], whole[b]), strict=True))}
            for a, b in combinations(scorers, 2)
        ],
        "budgets": [{"method": name, **budgets[name]} for name in methods],
    }


def _read_tables(readings: Mapping[int, Readings], judgements: Sequence[Judgement]) -> dict[str, list[dict[str, Any]]]:
    """How readers graded each method's replies, and how far the other judges agree with them, seed by seed."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*QUESTIONS, "readers", "judges_with_readers")}
    for seed, own in readings.items():
        same = [replace(j, sample=0) for j in judgements if j.sample == seed]
        parts = {
            **{name: grades(own, name) for name in QUESTIONS},
            "readers": between_readers(own), "judges_with_readers": judges_with_readers(own, same),
        }  # fmt: skip
        for name, rows in parts.items():
            found[name] += [{"seed": seed, **row} for row in rows]
    return found


def _rows(grid: Grid, cell: Cell, judgements: list[Judgement]) -> list[dict[str, Any]]:
    """Every comparison that was judged, the seeds behind it and the paper's figures for it."""
    rows = [
        {
            "method": row.method, "against": row.baseline, "judge": row.judge, "seeds": 0, "wins": row.wins,
            "losses": row.losses, "ties": row.ties, "masked": row.masked, "r_w": row.rate, "users": row.rate.clusters,
            "soft": row.soft.value, "p": row.p_value,
        }
        for row in compare(judgements, n=grid.config.resamples)
    ]  # fmt: skip
    for row in (rows := corrected(rows, "r_w")):
        key = (row["method"], row["against"], row["judge"])
        own = (j for j in judgements if (j.method, j.baseline, j.judge) == key and not j.masked)
        scores = {seed: [j.score for j in found] for seed, found in grouped(own, lambda j: j.sample).items()}
        row["seeds"], row["printed"] = len(scores), printed(grid.table, cell.column, *key[:2])
        row["by_seed"] = {seed: sum(scores[seed]) / len(scores[seed]) for seed in sorted(scores)}
        row["paper"] = "; ".join(f"{p['rate']} ({p['model']}, {p['judge']})" for p in row["printed"])
    return rows


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass as a record: its estimates stay what they are."""
    return {field.name: getattr(value, field.name) for field in fields(value)}
