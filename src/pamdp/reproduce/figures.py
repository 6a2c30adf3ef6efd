"""The figures of pages: rates with intervals and the paper's, shares of wins, ties and losses, and lines over steps.

Owns what is drawn. Knows nothing of files. The same results give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes

from pamdp.evaluation import svg
from pamdp.evaluation.significance import Estimate
from pamdp.evaluation.tables import Record, measured, signed
from pamdp.reproduce.tables import Table

MARKS = "osD^vPX*"
"""Colours repeat after four lines; marks do not."""


def steps(table: Table, x_label: str, lines: Mapping[str, Sequence[Estimate]], level: float = 0.0) -> str:
    """A line over steps with intervals for each name in LINES, and a horizontal one at LEVEL."""

    def draw(axes: Axes) -> None:
        axes.grid(axis="y", color=svg.GRID, linewidth=0.7)
        axes.axhline(level, color=svg.MUTED, linewidth=0.8)
        for i, (label, line) in enumerate(lines.items()):
            at = [t + 1 + 0.07 * (i - (len(lines) - 1) / 2) for t in range(len(line))]
            colour, mark = svg.nth_colour(i), MARKS[i % len(MARKS)]
            axes.vlines(at, [e.low for e in line], [e.high for e in line], color=colour, linewidth=1.2, alpha=0.5)
            values = [e.value for e in line]
            axes.plot(at, values, color=colour, marker=mark, markersize=4, linewidth=1.3, label=label)
        axes.set_xticks(range(1, max(map(len, lines.values())) + 1))
        axes.set_xlabel(x_label)
        across = 4 if max(map(len, lines)) < 12 else 2
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=across, frameon=False, handlelength=1.2)

    last = "; ".join(f"{label} {signed(line[-1].value, 3)}" for label, line in lines.items())
    return svg.draw(2.6, draw, f"{table.title}, {x_label}, last: {last}", table.name) + "\n"


def rates(table: Table, records: Sequence[Record]) -> str:
    """A bar for each comparison, and the paper's figures."""

    def paint(axes: Axes, y: int, r: Record) -> None:
        rate, right = r["r_w"], axes.get_yaxis_transform()
        axes.text(1, y - 0.32, measured(rate, 2), transform=right, va="center", ha="right", color=svg.MUTED)
        axes.vlines(0, y - 0.2, y + 0.2, color=svg.MUTED, linewidth=1)
        if math.isfinite(rate.value):
            axes.barh(y, rate.value, height=0.26, color=svg.ACCENT, alpha=0.9 if r["significant"] else 0.4)
        axes.hlines(y, rate.low, rate.high, color=svg.INK, linewidth=1.3, zorder=3)
        for p in r["printed"]:
            axes.plot(p["rate"], y, "D", markersize=4.5, markerfacecolor="none", markeredgecolor=svg.SECOND, zorder=4)

    return _rows(table, records, "r_w; ◇ the paper's", paint)


def shares(table: Table, records: Sequence[Record]) -> str:
    """Wins, ties and losses of each comparison as parts of a bar, and the paper's below."""

    def paint(axes: Axes, y: int, r: Record) -> None:
        axes.set_xlim(0, 1)
        for place, found in enumerate((r, *r["printed"])):
            parts, left = [found[key] for key in ("wins", "ties", "losses")], 0.0
            height, at, alpha = (0.07, y + 0.1 + 0.09 * place, 0.5) if place else (0.26, y, 0.9)
            for part, colour in zip(parts, (svg.ACCENT, svg.GRID, svg.BAD), strict=True):
                share = part / max(sum(parts), 1)
                axes.barh(at, share, left=left, height=height, color=colour, alpha=alpha)
                left += share

    return _rows(table, records, "won, tied, lost: ours above, the paper's below", paint)


def _rows(table: Table, records: Sequence[Record], x_label: str, paint: Callable[[Axes, int, Record], None]) -> str:
    """A row for each record under its name, and a heading over each judge's."""
    rows: list[tuple[str, Record | None]] = []
    for r in records:
        head = f"{r['data']}, {r['backbone']}, judged by {r['judge']}"
        rows += [] if (head, None) in rows else [(head, None)]
        rows.append((f"{r['method']} against {r['against']}{' *' if r['significant'] else ''}", r))

    def draw(axes: Axes) -> None:
        for y, (text, record) in enumerate(rows):
            weight, at = ("bold", y) if record is None else ("normal", y - 0.32)
            axes.text(0, at, text, transform=axes.get_yaxis_transform(), va="center", fontweight=weight)
            if record is not None:
                paint(axes, y, record)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks([])
        axes.set_xlabel(x_label)

    said = (f"{r['method']} against {r['against']} under {r['judge']} {signed(r['r_w'].value)}" for r in records)
    return svg.draw(0.6 + 0.5 * len(rows), draw, f"{table.title}: {'; '.join(said)}", table.name) + "\n"
