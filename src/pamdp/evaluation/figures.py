"""The report's figures: rates as bars, curves over training, controls as dots, success turn by turn.

Owns what is drawn where. Knows nothing of files and wording. Every figure is a function from numbers to SVG text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pamdp.evaluation import svg
from pamdp.evaluation.controls import Control
from pamdp.evaluation.significance import Estimate
from pamdp.evaluation.tables import interval, signed

_COLOURS = {"pamdp": svg.ACCENT, "bc": svg.SECOND, "vanilla": svg.MUTED}


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve: a name for the legend, its points, and intervals at the points if there are any."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = svg.ACCENT
    spans: Sequence[tuple[float, float]] | None = None
    smooth: bool = False


def colour_of(method: str) -> str:
    """One colour per method in every figure; methods of other names share one."""
    return _COLOURS.get(method.lower(), svg.THIRD)


def shared_limits(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Limits that hold 0 and every interval, so that panels side by side can be compared."""
    ends = [0.0] + [x for e in estimates for x in (e.value, e.low, e.high) if math.isfinite(x)]
    pad = 0.06 * (max(ends) - min(ends) or 1)
    return min(ends) - pad, max(ends) + pad


def rate_bars(rows: Sequence[tuple[str, str, Estimate]], limits: tuple[float, float], label: str, prefix: str) -> str:
    """Horizontal bars with intervals, a name and the numbers over each.

    Args:
      rows: (name, method, rate), from top to bottom.
      limits: of the axis, the same for all panels.
      label: what a screen reader says.
      prefix: of ids, unique in the page.
    """

    def paint(axes: Axes) -> None:
        for y, (name, method, rate) in enumerate(rows):
            _caption(axes, y, name, f"{signed(rate.value)}  {interval(rate)}")
            if math.isfinite(rate.value):
                axes.barh(y, rate.value, height=0.3, color=colour_of(method), alpha=0.9 if rate.sign else 0.45)
            _span(axes, y, rate, svg.INK)
        _rows(axes, len(rows), limits)
        axes.set_xlabel("success rate")

    return svg.draw(0.62 + 0.52 * len(rows), paint, label, prefix)


def control_dots(rows: Sequence[Control], label: str, prefix: str) -> str:
    """One row per control: dot, interval, the numbers, filled where it came out as it must."""
    limits = shared_limits([row.estimate for row in rows])
    digits = 2 if limits[1] - limits[0] > 0.3 else 3  # a control in nats per token is small

    def paint(axes: Axes) -> None:
        for y, row in enumerate(rows):
            colour = svg.ACCENT if row.passed else svg.BAD
            _caption(axes, y, row.name, f"{signed(row.mean, digits)}  {interval(row.estimate, digits)}")
            _span(axes, y, row.estimate, colour, width=2.2)
            axes.plot(
                row.mean, y, "o", markersize=7, color=colour, markerfacecolor=colour if row.passed else svg.PAPER,
                markeredgewidth=1.6, zorder=4,
            )  # fmt: skip
        _rows(axes, len(rows), limits)

    return svg.draw(0.45 + 0.52 * len(rows), paint, label, prefix)


def curves(lines: Sequence[Curve], x_label: str, label: str, prefix: str, zero: bool = False) -> str:
    """Curves over training: the raw values faint, a running mean over them where a line asks for it.

    Args:
      lines: what is drawn.
      x_label: under the axis.
      label: what a screen reader says.
      prefix: of ids, unique in the page.
      zero: draw the line y = 0.
    """

    def paint(axes: Axes) -> None:
        axes.grid(axis="y", color=svg.GRID, linewidth=0.7)
        if zero:
            axes.axhline(0, color=svg.MUTED, linewidth=0.8)
        for line in lines:
            x, y = np.array(line.points, dtype=float).reshape(-1, 2).T
            dots = "o" if len(x) < 12 else ""
            if line.spans is not None:
                low, high = np.array(line.spans, dtype=float).reshape(-1, 2).T
                axes.vlines(x, low, high, color=line.colour, linewidth=1.6, alpha=0.55)
            if line.smooth and len(x) >= 12:
                axes.plot(x, y, color=line.colour, linewidth=0.8, alpha=0.35)
                y = running_mean(y)
            axes.plot(x, y, color=line.colour, linewidth=1.8, marker=dots, markersize=4.5, label=line.name)
        axes.set_xlabel(x_label)
        axes.margins(x=0.03)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if len(lines) > 1:
            axes.legend(
                loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=len(lines), frameon=False, handlelength=1.2,
                columnspacing=1.4, borderaxespad=0.2,
            )  # fmt: skip

    return svg.draw(2.3, paint, label, prefix)


def turn_lines(judges: Mapping[str, Mapping[int, Estimate]], label: str, prefix: str) -> str:
    """Success rate at each turn of the dialogue, a line per judge, with intervals."""
    lines = list[Curve]()
    for i, (judge, turns) in enumerate(judges.items()):
        shift = 0.12 * (i - (len(judges) - 1) / 2)
        points = [(turn + 1 + shift, e.value) for turn, e in turns.items()]
        spans = [(e.low, e.high) for e in turns.values()]
        lines.append(Curve(_cut(judge, 28), points, svg.nth_colour(i), spans))
    return curves(lines, "turn of the dialogue", label, prefix, zero=True)


def running_mean(values: np.ndarray) -> np.ndarray:
    """Centred mean over about a tenth of the curve; at the ends over what is there."""
    half = max(1, len(values) // 20)
    padded = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(len(values))
    low, high = np.maximum(0, ends - half), np.minimum(len(values), ends + half + 1)
    result: np.ndarray = (padded[high] - padded[low]) / (high - low)
    return result


def _caption(axes: Axes, y: int, name: str, numbers: str) -> None:
    """Name and numbers in the line over a row, at the edges: no tick labels, which would eat a phone's width."""
    across = axes.get_yaxis_transform()
    axes.text(0, y - 0.3, _cut(name, 30), transform=across, va="center", fontweight="bold")
    axes.text(1, y - 0.3, numbers, transform=across, va="center", ha="right", color=svg.MUTED)


def _span(axes: Axes, y: int, estimate: Estimate, colour: str, width: float = 1.4) -> None:
    if math.isfinite(estimate.low):
        axes.hlines(y, estimate.low, estimate.high, color=colour, linewidth=width, zorder=3)
        for end in (estimate.low, estimate.high):
            axes.vlines(end, y - 0.08, y + 0.08, color=colour, linewidth=width, zorder=3)


def _rows(axes: Axes, count: int, limits: tuple[float, float]) -> None:
    axes.vlines([0] * count, np.arange(count) - 0.19, np.arange(count) + 0.19, color=svg.MUTED, linewidth=1, zorder=2)
    axes.set_xlim(*limits)
    axes.set_ylim(count - 0.6, -0.55)
    axes.set_yticks([])
    locator = MaxNLocator(6, steps=[1, 2, 5, 10])
    step = np.diff(locator.tick_values(*limits)[:2])[0]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(lambda x, _: signed(x, digits))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
