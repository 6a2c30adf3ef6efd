"""From stored replies, judgements and scores to the page of an offline table, the paper's figures beside ours.

Owns what the results are. Reads files only, so the same files give the same page; no model and no data set is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import combinations
from typing import Any

from pamdp.errors import RunError
from pamdp.evaluation.agreement import between_judges, between_orders
from pamdp.evaluation.records import read_judgements
from pamdp.evaluation.scores import Scored, read_scores, report_scores, scorer_kappa
from pamdp.evaluation.success import compare, differences
from pamdp.evaluation.tables import Column, Record, TidyTable, coloured, measured, p_text, signed
from pamdp.evaluation.text_metrics import describe
from pamdp.reproduce.cells import Cell, Grid
from pamdp.reproduce.figures import rates, shares
from pamdp.reproduce.page import Page, about, corrected, rest, told
from pamdp.reproduce.store import verdict_file
from pamdp.reproduce.tables import VANILLA, printed

MAIN = {
    "r_w": Column(write=measured), "p": Column(write=p_text), "p_holm": Column("p (Holm)", p_text),
    "by_seed": Column(write=lambda found: " ".join(map(signed, found.values()))),
    "paper": Column("paper's r_w", lambda text: text or "not printed"),
    "users": None, "soft": None, "printed": None, "not_applicable": None,
}  # fmt: skip
NOTE = (
    "r_w = (wins − losses) / (wins + losses + ties), Eq. 15, every comparison judged in both orders. Intervals are "
    "bootstrapped over users, all seeds of a user together. Significant: the interval excludes 0 and the sign-flip "
    "p-value, corrected by Holm for all comparisons of a judge in this cell, is below .05. The paper's figures are "
    "those it prints, for other backbones, test sets and judges: a reference, not a goal."
)


def offline_page(grid: Grid) -> Page:
    """The page of what is stored in a run.

    Raises:
      RunError, DataError: something is missing or damaged; the message names the file.
    """
    name, title, config = grid.table.name, grid.table.title, grid.config
    parts, findings = dict[str, list[Record]](), list[str]()
    for cell in grid.cells:
        found = _read(grid, cell)
        for part, records in found.items():
            own = [{"data": cell.source, "backbone": cell.model, **record} for record in records]
            parts[part] = [*parts.get(part, ()), *own]
        rows, gaps, absent = found["comparisons"], found["differences"], found["absent"]
        said = told(rows, "r_w", "is better than {against}", "is worse than {against}")
        said += told(gaps, "difference", "has a higher r_w than {other}", "has a lower r_w than {other}")
        lacking = [f"{r['method']} is not applicable: {r['not_applicable']}." for r in absent]
        sentences = [*said, *lacking, rest(len(said), len(rows) + len(gaps))]
        findings += [f"{cell.title}: {sentence}" for sentence in sentences]
    rows, absent = parts.pop("comparisons"), parts.pop("absent")
    shown = [
        {
            "data": r["data"], "backbone": r["backbone"], "judge": f"judged by {r['judge']}",
            "method": r["method"] if r["against"] == VANILLA else f"{r['method']} : {r['against']}",
            "won lost tied": f"{r['wins']} {r['losses']} {r['ties']}",
            "r_w, 95 % interval": coloured(r["r_w"], clear=r["significant"]), "p Holm": p_text(r["p_holm"]),
            "paper's r_w": " ".join(signed(p["rate"]) for p in r["printed"]) or "none",
        }
        for r in rows
    ]  # fmt: skip
    return Page(
        name, title, [NOTE, *about(config.seeds, config.reward)], TidyTable([*rows, *absent], MAIN, 5),
        findings, {part: TidyTable(records, left=3) for part, records in parts.items()},
        {"table": name, "seeds": config.seeds, "reward_judge": config.reward},
        {"": (shares if grid.table.shares else rates)(name, title, rows)},
        TidyTable(shown).terminal(title, ("data", "backbone", "judge")),
    )  # fmt: skip


def _read(grid: Grid, cell: Cell) -> dict[str, Sequence[Record]]:
    """All records of one cell, by the table that has them."""
    n, methods, lacking = grid.config.resamples, grid.methods(cell), cell.inapplicable()
    judgements = [
        judgement
        for judge in grid.config.judges
        for pair in grid.pairs(cell)
        for seed in grid.seeds(cell, *pair)
        for judgement in read_judgements(verdict_file(cell.folder, "judged", judge, pair, seed))
    ]
    comparisons = [
        {
            "method": row.method, "against": row.baseline, "judge": row.judge, "seeds": 0, "wins": row.wins,
            "losses": row.losses, "ties": row.ties, "masked": row.masked, "r_w": row.rate, "users": row.rate.clusters,
            "soft": row.soft.value, "p": row.p_value,
        }
        for row in compare(judgements, n=n)
    ]  # fmt: skip
    for row in (comparisons := corrected(comparisons, "r_w")):
        key = (row["method"], row["against"], row["judge"])
        scores = dict[int, list[int]]()
        for j in judgements:
            if (j.method, j.baseline, j.judge) == key and not j.masked:
                scores.setdefault(j.sample, []).append(j.score)
        row["by_seed"] = {seed: sum(scores[seed]) / len(scores[seed]) for seed in sorted(scores)}
        row["seeds"], row["printed"] = len(scores), printed(grid.table, cell.column, *key[:2])
        row["paper"] = "; ".join(f"{p['rate']} ({p['model']}, {p['judge']})" for p in row["printed"])
    # Against Vanilla all rows are on one footing; the table's own pairs are lines already.
    gaps = differences([j for j in judgements if j.baseline == VANILLA], n=n)
    agreement = max(1, n // 5)
    scored = {
        (name, method): [
            one
            for seed in grid.seeds(cell, method)
            for one in read_scores(verdict_file(cell.folder, "scored", name, (method,), seed))
        ]
        for name in grid.config.scorers
        for method in methods
    }
    return {
        "comparisons": comparisons,
        "absent": [
            {"method": name, "against": "not applicable", "not_applicable": lacking[name]}
            for name in grid.table.methods(grid.config.methods)
            if name in lacking
        ],
        "differences": corrected(
            [
                {"method": d.method, "other": d.other, "judge": d.judge, "difference": d.rate, "p": d.p_value}
                for d in gaps
            ],
            "difference",
        ),
        "agreement": [
            _fields(a) for a in (*between_judges(judgements, n=agreement), *between_orders(judgements, n=agreement))
        ],
        "texts": [{"method": name, **_text(grid, cell, name)} for name in methods],
        "scores": [_fields(report_scores(some, n)) for some in scored.values()],
        "scorers": _scorers(scored, grid.config.scorers),
        "budgets": _budgets(cell, methods),
    }


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass as a record: its estimates stay what they are."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _text(grid: Grid, cell: Cell, method: str) -> dict[str, Any]:
    said, n = grid.replies(cell, method), grid.config.resamples
    return _fields(describe([s.reply for s in said], [s.reference_nll for s in said], [s.user for s in said], n=n))


def _scorers(scored: Mapping[tuple[str, str], list[Scored]], scorers: Sequence[str]) -> list[Record]:
    """Two scorers, κ of their ratings and of their categories, and how many replies both rated."""
    whole = {name: [s for key, some in scored.items() if key[0] == name for s in some] for name in scorers}
    names = ("kappa_of_ratings", "kappa_of_categories", "replies")
    return [
        {"scorer": a, "and": b, **dict(zip(names, scorer_kappa(whole[a], whole[b]), strict=True))}
        for a, b in combinations(scorers, 2)
    ]


def _budgets(cell: Cell, methods: Sequence[str]) -> list[Record]:
    file = cell.folder / "budgets.json"
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return [{"method": name, **stored[name]} for name in methods]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is missing or damaged: {error!r}; run the same command without --render") from error
