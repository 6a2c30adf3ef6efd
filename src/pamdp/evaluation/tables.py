"""Tidy tables: records of unrounded values, how each is written, and every form of both.

Owns the spelling of rates, intervals and unknowns, and Markdown, LaTeX, CSV, JSON and terminal tables of any records;
success rates are one kind. Knows nothing of how numbers were computed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd
from pydantic_core import to_jsonable_python
from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from pamdp.evaluation.records import grouped
from pamdp.evaluation.significance import Estimate
from pamdp.evaluation.success import SuccessRate

UNKNOWN_TEXT = "n/a"
Record = Mapping[str, Any]
"""One row, by names of columns. What a record lacks is an empty cell."""
Write = Callable[[Any], str] | None
"""How the values of a column are written; None hides it."""


def number(value: float, digits: int = 2, plus: str = "") -> str:
    """`0.31`, `−0.02`, `0.00` without a sign, or `n/a`; PLUS stands before what is above 0."""
    text = f"{abs(value):.{digits}f}"
    if not math.isfinite(value) or float(text) == 0:
        return text if math.isfinite(value) else UNKNOWN_TEXT
    return (plus if value > 0 else "−") + text


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, a real minus and no sign at zero: `+0.31`, `−0.02`, `0.00`."""
    return number(value, digits, "+")


def interval(estimate: Estimate, digits: int = 2, plus: str = "+") -> str:
    """`[+0.12, +0.49]`, or `n/a` where there is none."""
    if not math.isfinite(estimate.low):
        return UNKNOWN_TEXT
    return f"[{number(estimate.low, digits, plus)}, {number(estimate.high, digits, plus)}]"


def measured(estimate: Estimate, digits: int = 3, plus: str = "+") -> str:
    """An estimate with its interval, where it has one: `+0.310 [+0.120, +0.490]`."""
    text = number(estimate.value, digits, plus)
    return f"{text} {interval(estimate, digits, plus)}" if math.isfinite(estimate.low) else text


def coloured(estimate: Estimate, digits: int = 3, clear: bool = True) -> Text:
    """An estimate for a terminal: in colour where its interval excludes 0 and the difference is CLEAR."""
    return Text(measured(estimate, digits), {1: "bold green", 0: "", -1: "bold red"}[estimate.sign if clear else 0])


def p_text(p: float) -> str:
    """`0.031`, `< 0.001`, or `n/a`."""
    return "< 0.001" if p < 0.001 else number(p, 3)


def written(value: Any) -> str:
    """A value as its kind is written: numbers and estimates with three digits, yes or no, parts one after another."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float | Estimate):
        return number(value, 3) if isinstance(value, float) else measured(value, plus="")
    if isinstance(value, dict):
        return " ".join(f"{key} {written(x)}" for key, x in value.items())
    return " ".join(map(written, value)) if isinstance(value, list | tuple) else str(value)


@dataclass(frozen=True, slots=True)
class TidyTable:
    """Records under columns that are called as their keys, words at the left; WRITE is by key."""

    records: Sequence[Record]
    write: Mapping[str, Write] = field(default_factory=dict)

    def markdown(self) -> str:
        """A pipe table."""
        frame = self._frame(lambda text: re.sub(r"[|*`]|<(?=\S)", r"\\\g<0>", text))
        align = list(self._columns().values())
        return f"{frame.to_markdown(index=False, disable_numparse=True, colalign=align)}\n"

    def latex(self) -> str:
        """A `tabular` for booktabs, like Table 2 of the paper."""
        align = "".join(side[0] for side in self._columns().values())
        text: str = self._frame(str).to_latex(index=False, escape=True, column_format=align)
        # What fonts of LaTeX have as mathematics only.
        return text.replace("−", "$-$").replace("<", "$<$").replace(r"r\_w", "$r_w$")

    def terminal(self, title: str, by: Sequence[str] = ()) -> list[RichTable]:
        """Tables for a terminal, one for all records that have the same values of BY; a `Text` keeps its colour."""
        groups, tables = grouped(self.records, lambda r: ", ".join(str(r[key]) for key in by)), list[RichTable]()
        for head, records in (groups or ({} if by else {"": []})).items():
            # Text, not markup: a name may hold brackets.
            heading = Text(f"{title}\n{head}" if head else title)
            table = RichTable(title=heading, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
            columns = {key: side for key, side in self._columns().items() if key not in by}
            for key, side in columns.items():
                table.add_column(Text(_name(key)), justify=side, overflow="fold", no_wrap=side == "right")
            for record in records:
                cells = (self._cell(record, key) for key in columns)
                table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
            tables.append(table)
        return tables

    def _columns(self) -> dict[str, Any]:
        """Every column that is not hidden, and its side."""
        sides = dict[str, str]()
        for key, value in (item for record in self.records for item in record.items()):
            words = value is None or isinstance(value, str)
            sides[key] = sides.get(key, "left") if words else "right"
        return {key: side for key, side in sides.items() if self.write.get(key, written) is not None}

    def _cell(self, record: Record, key: str) -> str | Text:
        value = record.get(key)
        if value is None or isinstance(value, Text):
            return value or ""
        return (self.write.get(key) or written)(value)

    def _frame(self, escape: Callable[[str], str]) -> pd.DataFrame:
        keys = list(self._columns())
        cells = [[escape(" ".join(str(self._cell(record, key)).split())) for key in keys] for record in self.records]
        return pd.DataFrame(cells, columns=[escape(_name(key)) for key in keys], dtype=object)


plain = partial(to_jsonable_python, inf_nan_mode="null")
"""A value as JSON has it: a dataclass as its fields, null for what is not a number."""


def flat(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Records as CSV and JSON have them, unrounded.

    The ends of an estimate stand beside it as `low` and `high`, after its name where there are several.
    """
    several = len({key for record in records for key, x in record.items() if isinstance(x, Estimate)}) > 1

    def parts(key: str, x: Any) -> dict[str, Any]:
        name = f"{key}_" if several else ""
        return {key: x.value, f"{name}low": x.low, f"{name}high": x.high} if isinstance(x, Estimate) else {key: x}

    return [plain({k: x for item in record.items() for k, x in parts(*item).items()}) for record in records]


def records_csv(records: Sequence[Record]) -> str:
    """Comma-separated values with a header line; empty where there are none, and nothing that holds further values."""
    rows = [{key: x for key, x in row.items() if not isinstance(x, dict | list)} for row in flat(records)]
    text: str = pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n")
    return text


def success_table(rows: Sequence[SuccessRate]) -> TidyTable:
    """Success rates as a table."""
    records = [
        {
            "method": row.method, "baseline": row.baseline, "judge": row.judge, "wins": row.wins, "losses": row.losses,
            "ties": row.ties, "masked": row.masked, "r_w": row.rate, "soft": row.soft, "p_value": row.p_value,
            "comparisons": row.n, "users": row.rate.clusters,
        }
        for row in rows
    ]  # fmt: skip
    hidden: dict[str, Write] = dict.fromkeys(("comparisons", "users"))
    return TidyTable(records, {"r_w": measured, "soft": measured, "p_value": p_text, **hidden})


def to_table(rows: Sequence[SuccessRate], title: str = "Success rate r_w") -> RichTable:
    """Success rates for a terminal of 80 columns; those whose interval excludes 0 stand in colour."""
    found = success_table(rows)
    # A terminal has no room for these, unless something is masked.
    wide: dict[str, Write] = dict.fromkeys(("soft", "p_value", *([] if any(r.masked for r in rows) else ["masked"])))
    records = [{**record, "r_w": coloured(record["r_w"])} for record in found.records]
    (table,) = TidyTable(records, {**found.write, **wide}).terminal(title)
    table.caption = "r_w = (wins − losses) / (wins + losses + ties), Eq. 15"
    return table


def _name(key: str) -> str:
    return key.replace("_", " ").replace("r w", "r_w")
