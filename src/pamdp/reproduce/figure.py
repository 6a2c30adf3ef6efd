"""The figure of a table: rates with intervals and the paper's beside them, or shares of wins, ties and losses.

Owns what is drawn. Knows nothing of files. The same results give the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from matplotlib.axes import Axes

from pamdp.evaluation import svg
from pamdp.evaluation.tables import interval, signed
from pamdp.reproduce.results import MethodLine, Results

WON, TIED, LOST = svg.ACCENT, svg.GRID, svg.BAD


@dataclass(frozen=True, slots=True)
class _Bar:
    """A heading where it has no numbers; otherwise one comparison."""

    text: str
    line: MethodLine | None = None


def draw_figure(results: Results) -> str:
    """The figure as SVG."""
    bars = []
    for c in results.cells:
        for judge in dict.fromkeys(line.row.judge for line in c.lines):
            bars.append(_Bar(f"{c.cell.title}, judged by {judge}"))
            bars += [_Bar(_name(line), line) for line in c.lines if line.row.judge == judge]
    paint = _shares if results.table.shares else _rates

    def draw(axes: Axes) -> None:
        for y, bar in enumerate(bars):
            if bar.line is None:
                axes.text(0, y, bar.text, transform=axes.get_yaxis_transform(), va="center", fontweight="bold")
            else:
                axes.text(0, y - 0.32, bar.text, transform=axes.get_yaxis_transform(), va="center")
                paint(axes, y, bar.line)
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_yticks([])
        if results.table.shares:
            axes.set_xlim(0, 1)
        axes.set_xlabel(
            "won, tied, lost: ours above, the paper's below" if results.table.shares else "r_w; ◇ the paper's"
        )

    label = f"{results.table.title}: " + "; ".join(_said(bar.line) for bar in bars if bar.line is not None)
    return svg.draw(0.6 + 0.5 * len(bars), draw, label, results.table.name) + "\n"


def _name(line: MethodLine) -> str:
    return f"{line.row.method} against {line.row.baseline}" + (" *" if line.significant else "")


def _said(line: MethodLine) -> str:
    return f"{line.row.method} against {line.row.baseline} under {line.row.judge} {signed(line.row.rate.value)}"


def _rates(axes: Axes, y: int, line: MethodLine) -> None:
    rate = line.row.rate
    numbers = f"{signed(rate.value)} {interval(rate)}"
    axes.text(1, y - 0.32, numbers, transform=axes.get_yaxis_transform(), va="center", ha="right", color=svg.MUTED)
    axes.vlines(0, y - 0.2, y + 0.2, color=svg.MUTED, linewidth=1)
    if math.isfinite(rate.value):
        axes.barh(y, rate.value, height=0.26, color=svg.ACCENT, alpha=0.9 if line.significant else 0.4)
    if math.isfinite(rate.low):
        axes.hlines(y, rate.low, rate.high, color=svg.INK, linewidth=1.3, zorder=3)
    for p in line.printed:
        axes.plot(p.rate, y, "D", markersize=4.5, markerfacecolor="none", markeredgecolor=svg.SECOND, zorder=4)


def _shares(axes: Axes, y: int, line: MethodLine) -> None:
    counts = [(line.row.wins, line.row.ties, line.row.losses), *((p.wins, p.ties, p.losses) for p in line.printed)]
    for place, parts in enumerate(counts):
        total, left = max(sum(parts), 1), 0.0
        for part, colour in zip(parts, (WON, TIED, LOST), strict=True):
            height, at = (0.26, y) if place == 0 else (0.07, y + 0.1 + 0.09 * place)
            axes.barh(at, part / total, left=left, height=height, color=colour, alpha=0.9 if place == 0 else 0.5)
            left += part / total
