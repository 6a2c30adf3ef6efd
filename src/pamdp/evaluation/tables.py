"""Success rates as JSON, terminal table, CSV, Markdown and LaTeX.

Owns spelling: how a rate, an interval and an unknown are written. Knows nothing of how they were computed.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from pamdp.evaluation.significance import Estimate
from pamdp.evaluation.success import SuccessRate

HEADER = ("method", "against", "judge", "wins", "losses", "ties", "masked", "r_w", "95 % interval", "soft", "p")
WIDE = ("masked", "soft", "p")
"""Columns for which a terminal has no room; every other format has them."""
UNKNOWN_TEXT = "n/a"
_MATHS = {"r_w": "$r_w$", "p": "$p$"}


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, a real minus and no sign at zero: `+0.31`, `−0.02`, `0.00`."""
    if not math.isfinite(value):
        return UNKNOWN_TEXT
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else ("+" if value > 0 else "−") + text


def interval(estimate: Estimate, digits: int = 2) -> str:
    """`[+0.12, +0.49]`, or `n/a` where there is none."""
    if not math.isfinite(estimate.low):
        return UNKNOWN_TEXT
    return f"[{signed(estimate.low, digits)}, {signed(estimate.high, digits)}]"


def p_text(p: float) -> str:
    """`0.031`, `< 0.001`, or `n/a`."""
    return UNKNOWN_TEXT if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def to_json(rows: Sequence[SuccessRate]) -> str:
    """A JSON list with unrounded numbers; null where there is none."""
    return json.dumps([_record(row) for row in rows], ensure_ascii=False, indent=2, allow_nan=False)


def to_table(rows: Sequence[SuccessRate], title: str = "Success rate r_w") -> Table:
    """A table for the terminal, as narrow as 80 columns; rates whose interval excludes 0 stand in colour."""
    caption = "r_w = (wins − losses) / (wins + losses + ties), Eq. 15"
    table = Table(title=title, title_justify="left", caption=caption, box=SIMPLE, padding=(0, 1, 0, 0))
    shown = [name for name in HEADER if name not in WIDE or (name == "masked" and any_masked(rows))]
    for name in shown:
        numbers = name not in HEADER[:3]
        table.add_column(name, justify="right" if numbers else "left", no_wrap=numbers)
    for row in rows:
        cells = [Text(cell) for cell in _cells(row)]  # Text, not markup: a name may hold brackets
        cells[HEADER.index("r_w")].stylize({1: "bold green", 0: "", -1: "bold red"}[row.rate.sign])
        table.add_row(*(cells[HEADER.index(name)] for name in shown))
    return table


def any_masked(rows: Sequence[SuccessRate]) -> bool:
    """Whether a failed judgement is left out of any row."""
    return any(row.masked for row in rows)


def to_csv(rows: Sequence[SuccessRate]) -> str:
    """Comma-separated values with a header line; numbers unrounded, empty where there are none."""
    out = io.StringIO()
    records = [_record(row) for row in rows]
    writer = csv.DictWriter(out, fieldnames=_FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def to_markdown(rows: Sequence[SuccessRate]) -> str:
    """A pipe table."""
    return markdown_grid(HEADER, [_cells(row) for row in rows], left=3)


def to_latex(rows: Sequence[SuccessRate]) -> str:
    """A `tabular` for booktabs, like Table 2 of the paper."""
    return latex_grid(HEADER, [_cells(row) for row in rows], left=3)


def markdown_grid(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Any cells as a pipe table; all but the first LEFT columns are aligned to the right."""
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join(["---"] * left + ["---:"] * (len(header) - left)) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def latex_grid(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Any cells as a `tabular`; r_w and p of the header are set as mathematics."""
    head = " & ".join(_MATHS.get(name, _latex(name)) for name in header)
    body = [" & ".join(map(_latex, row)) + r" \\" for row in rows]
    start = r"\begin{tabular}{" + "l" * left + "r" * (len(header) - left) + "}"
    return "\n".join([start, r"\toprule", head + r" \\", r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""])


_FIELDS = (
    "method", "baseline", "judge", "wins", "losses", "ties", "masked", "r_w", "r_w_low", "r_w_high",
    "soft", "soft_low", "soft_high", "p_value", "comparisons", "users",
)  # fmt: skip


def _record(row: SuccessRate) -> dict[str, str | int | float | None]:
    rate, soft = row.rate, row.soft
    numbers = (rate.value, rate.low, rate.high, soft.value, soft.low, soft.high, row.p_value)
    known = [x if math.isfinite(x) else None for x in numbers]
    counts = (row.wins, row.losses, row.ties, row.masked)
    return dict(zip(_FIELDS, (row.method, row.baseline, row.judge, *counts, *known, row.n, rate.clusters), strict=True))


def _cells(row: SuccessRate) -> list[str]:
    counts = (row.wins, row.losses, row.ties, row.masked)
    numbers = (signed(row.rate.value, 3), interval(row.rate, 3), signed(row.soft.value, 3), p_text(row.p_value))
    return [row.method, row.baseline, row.judge, *map(str, counts), *numbers]


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "<": "$<$"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
