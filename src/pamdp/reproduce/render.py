"""Results as CSV, Markdown, LaTeX, JSON, a figure and a table for the terminal.

Owns spelling and files. The same results give the same bytes: no date, no random number, no path goes in.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.table import Table as Grid
from rich.text import Text

from pamdp.evaluation.agreement import Agreement
from pamdp.evaluation.significance import Estimate
from pamdp.evaluation.tables import interval, latex_grid, markdown_grid, p_text, signed
from pamdp.files import write_atomic
from pamdp.reproduce.figure import draw_figure
from pamdp.reproduce.formatting import SCORES, score_cells, score_sentences
from pamdp.reproduce.results import CellResults, MethodLine, Results
from pamdp.reproduce.tables import Printed

HEADER = (
    "data", "backbone", "method", "against", "judge", "seeds", "wins", "losses", "ties", "masked", "r_w",
    "95 % interval", "by seed", "p", "p (Holm)", "significant", "paper's r_w",
)  # fmt: skip
LEFT = 5
TEXTS = ("method", "words", "repetition", "distinct-1", "distinct-2", "reference NLL", "empty", "replies")
BUDGETS = ("method", "learns", "context", "reply", "beside", "examples", "draws", "verdicts")


def write_all(results: Results, folder: Path) -> list[Path]:
    """Write every form into FOLDER, atomically; gives the files."""
    name = results.table.name
    texts = {
        f"{name}.csv": to_csv(results),
        f"{name}.md": to_markdown(results),
        f"{name}.tex": latex_grid(HEADER, _all_cells(results), LEFT),
        f"{name}.json": json.dumps(to_json(results), ensure_ascii=False, indent=2, allow_nan=False) + "\n",
        f"{name}.svg": draw_figure(results),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_atomic(folder / file, text)
    return [folder / file for file in texts]


def to_csv(results: Results) -> str:
    """One line per comparison and judge; numbers unrounded, empty where there are none."""
    records = [_record(cell, line) for cell in results.cells for line in cell.lines]
    absent = [
        {"data": c.cell.source, "backbone": c.cell.model, "method": name, "not_applicable": reason}
        for c in results.cells
        for name, reason in c.inapplicable.items()
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=[*records[0], "not_applicable"], lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows([*records, *absent])
    return out.getvalue()


def to_json(results: Results) -> dict[str, object]:
    """Everything, unrounded; null where there is no number."""
    return {
        "table": results.table.name, "seeds": list(results.seeds), "reward_judge": results.reward,
        "cells": [
            {
                "data": c.cell.source, "backbone": c.cell.model,
                "comparisons": [
                    {**_record(c, line), "by_seed": {str(seed): _plain(x) for seed, x in line.by_seed.items()},
                     "printed": [asdict(p) for p in line.printed]}
                    for line in c.lines
                ],
                "differences": [
                    {
                        "method": g.difference.method, "other": g.difference.other, "judge": g.difference.judge,
                        "difference": _plain(g.difference.rate.value), "low": _plain(g.difference.rate.low),
                        "high": _plain(g.difference.rate.high), "p": _plain(g.difference.p_value),
                        "p_holm": _plain(g.p_holm), "significant": g.significant,
                    }
                    for g in c.gaps
                ],
                "agreement": [_agreement(a) for a in (*c.judges, *c.orders)],
                "scores": [_tree(asdict(s)) for s in c.scores],
                "scorers": [
                    {"first": a, "second": b, "kappa_rating": _plain(x), "kappa_category": _plain(y), "n": n}
                    for a, b, x, y, n in c.scorers
                ],
                "not_applicable": c.inapplicable,
                "texts": {name: _tree(asdict(report)) for name, report in c.texts.items()},
                "budgets": {name: asdict(budget) for name, budget in c.budgets.items()},
            }
            for c in results.cells
        ],
    }  # fmt: skip


def to_markdown(results: Results) -> str:
    """The page: main table, what is significant, agreement, texts, budgets."""
    parts = [f"# {results.table.title}\n", *(f"{note}\n" for note in notes(results))]
    parts.append(markdown_grid(HEADER, _all_cells(results), LEFT))
    for c in results.cells:
        parts.append(f"## {c.cell.title}\n")
        parts.append("".join(f"- {sentence}\n" for sentence in findings(c)))
        parts.append("### Agreement\n")
        parts.append("".join(f"- {sentence}\n" for sentence in _agreements(c)))
        parts.append("### Replies as texts\n")
        parts.append(markdown_grid(TEXTS, _text_cells(c), 1))
        if c.scores:
            parts.append("### Scores of single replies\n")
            parts.append(markdown_grid(SCORES, [score_cells(s) for s in c.scores], 2))
            parts.append("".join(f"- {sentence}\n" for sentence in score_sentences(c.scores, c.scorers)))
        parts.append("### What each method was allowed\n")
        parts.append(markdown_grid(BUDGETS, _budget_cells(c), 2))
    return "\n".join(parts)


def to_grids(results: Results) -> list[Grid]:
    """The main table for a terminal of 80 columns, a part for each cell and judge; significant rates in colour."""
    found = []
    for c in results.cells:
        for judge in dict.fromkeys(line.row.judge for line in c.lines):
            title = f"{results.table.title}\n{c.cell.title}, judged by {judge}"
            grid = Grid(title=title, title_justify="left", box=box.SIMPLE_HEAD)
            grid.add_column("method")
            for name in ("won lost tied", "r_w, 95 % interval", "p Holm", "paper's r_w"):
                grid.add_column(name, justify="right", no_wrap=name != "paper's r_w")
            for line in (line for line in c.lines if line.row.judge == judge):
                row = line.row
                style = ("bold green" if row.rate.sign > 0 else "bold red") if line.significant else ""
                name = row.method if row.baseline == "Vanilla" else f"{row.method} : {row.baseline}"
                grid.add_row(
                    name, f"{row.wins} {row.losses} {row.ties}", Text(_number(row.rate), style),
                    p_text(line.p_holm), " ".join(signed(p.rate, 2) for p in line.printed) or "none",
                )  # fmt: skip
            found.append(grid)
    return found


def notes(results: Results) -> list[str]:
    """How to read the table, and what it cannot say."""
    out = [
        "r_w = (wins − losses) / (wins + losses + ties), Eq. 15, every comparison judged in both orders. Intervals are "
        "bootstrapped over users, all seeds of a user together. Significant: the interval excludes 0 and the sign-flip "
        "p-value, corrected by Holm for all comparisons of a judge in this cell, is below .05. The paper's figures are "
        "those it prints, for other backbones, test sets and judges: a reference, not a goal.",
        f"The judge {results.reward} also gave the rewards: of methods that it rewarded it is no independent judge.",
    ]
    if len(results.seeds) < 3:
        out.append(f"Only {len(results.seeds)} seed(s): the spread between trainings is not known.")
    return out


def findings(c: CellResults) -> list[str]:
    """Sentences that say which differences are significant under which judge, and that the others are not."""
    said = []
    for line in c.lines:
        if line.significant:
            word = "better" if line.row.rate.sign > 0 else "worse"
            row = line.row
            said.append(f"{row.method} is {word} than {row.baseline} under {row.judge}: {_number(row.rate)}.")
    for gap in c.gaps:
        if gap.significant:
            d = gap.difference
            word = "higher" if d.rate.sign > 0 else "lower"
            said.append(f"{d.method} has a {word} r_w than {d.other} under {d.judge}: {_number(d.rate)}.")
    count = len(c.lines) + len(c.gaps)
    rest, found = count - len(said), bool(said)
    said += [f"{name} is not applicable: {reason}." for name, reason in c.inapplicable.items()]
    return [*said, f"{'No other' if found else 'No'} difference is significant ({rest} of {count} comparisons)."]


def _number(e: Estimate) -> str:
    return f"{signed(e.value, 3)} {interval(e, 3)}"


def _all_cells(results: Results) -> list[list[str]]:
    return [cells for c in results.cells for cells in (*(_cells(c, line) for line in c.lines), *_absent(c))]


def _absent(c: CellResults) -> list[list[str]]:
    """Rows without results: the reason stands below the table."""
    empty = ["n/a"] * (len(HEADER) - LEFT)
    return [[c.cell.source, c.cell.model, name, "not applicable", "", *empty] for name in c.inapplicable]


def _cells(c: CellResults, line: MethodLine) -> list[str]:
    row, seeds = line.row, " ".join(signed(x) for x in line.by_seed.values())
    counts = (len(line.by_seed), row.wins, row.losses, row.ties, row.masked)
    return [
        c.cell.source, c.cell.model, row.method, row.baseline, row.judge, *map(str, counts), signed(row.rate.value, 3),
        interval(row.rate, 3), seeds, p_text(row.p_value), p_text(line.p_holm), "yes" if line.significant else "no",
        "; ".join(_reference(p) for p in line.printed) or "not printed",
    ]  # fmt: skip


def _reference(p: Printed) -> str:
    return f"{signed(p.rate, 3)} ({p.model}, {p.judge})"


def _record(c: CellResults, line: MethodLine) -> dict[str, str | int | float | bool | None]:
    row = line.row
    return {
        "data": c.cell.source, "backbone": c.cell.model, "method": row.method, "against": row.baseline,
        "judge": row.judge, "seeds": len(line.by_seed), "wins": row.wins, "losses": row.losses, "ties": row.ties,
        "masked": row.masked, "r_w": _plain(row.rate.value), "low": _plain(row.rate.low), "high": _plain(row.rate.high),
        "users": row.rate.clusters, "soft": _plain(row.soft.value), "p": _plain(row.p_value),
        "p_holm": _plain(line.p_holm), "significant": line.significant,
        "paper": "; ".join(f"{p.rate} ({p.model}, {p.judge})" for p in line.printed),
    }  # fmt: skip


def _agreements(c: CellResults) -> list[str]:
    said = [f"{a.first} and {a.second}: κ {_number(a.kappa)}, equal verdicts {a.same:.2f}" for a in c.judges]
    for a in c.orders:
        shown = "n/a" if math.isnan(a.first_shown) else f"{a.first_shown:.2f}"
        said.append(
            f"{a.first} with itself in the other order: κ {_number(a.kappa)}, equal verdicts {a.same:.2f}, decided for "
            f"the reply shown first {shown}"
        )
    return said or ["nothing was judged twice"]


def _text_cells(c: CellResults) -> list[list[str]]:
    return [
        [
            name, f"{r.words.value:.1f}", f"{r.repetition.value:.3f}", f"{r.distinct_1:.3f}", f"{r.distinct_2:.3f}",
            "n/a" if math.isnan(r.nll.value) else f"{r.nll.value:.3f} [{r.nll.low:.3f}, {r.nll.high:.3f}]",
            str(r.empty), str(r.n),
        ]
        for name, r in c.texts.items()
    ]  # fmt: skip


def _budget_cells(c: CellResults) -> list[list[str]]:
    return [
        [name, b.weights, *map(str, (b.context, b.reply, b.beside, b.examples, b.draws, b.verdicts))]
        for name, b in c.budgets.items()
    ]


def _agreement(a: Agreement) -> dict[str, str | int | float | None]:
    return {
        "first": a.first, "second": a.second, "n": a.n, "same": _plain(a.same), "kappa": _plain(a.kappa.value),
        "low": _plain(a.kappa.low), "high": _plain(a.kappa.high), "first_shown": _plain(a.first_shown),
    }  # fmt: skip


def _plain(x: float) -> float | None:
    """A number for JSON, which has no word for NaN."""
    return x if math.isfinite(x) else None


def _tree(values: dict[str, object]) -> dict[str, object]:
    return {key: _leaf(value) for key, value in values.items()}


def _leaf(value: object) -> object:
    if isinstance(value, dict):
        return _tree(value)
    if isinstance(value, tuple):
        return [_leaf(x) for x in value]
    return _plain(value) if isinstance(value, float) else value
