"""The report's figures: rates as bars, success turn by turn, curves over training, controls as dots.

Owns what is drawn where, titles and captions, and how the training log's keys are called. Knows nothing of files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pamdp.evaluation import svg
from pamdp.evaluation.records import Control, Judgement, grouped
from pamdp.evaluation.run_reader import Metric
from pamdp.evaluation.significance import Estimate
from pamdp.evaluation.success import SuccessRate, by_comparison, by_turn, primary
from pamdp.evaluation.tables import interval, signed

STAGES = {"clone": "Behaviour cloning", "offline": "Offline RL", "online": "Online RL"}

CURVES = {
    "reward": ("judged reward", "Mean reward of the replies sampled in one update."),
    "kl": ("KL to the cloned policy", "How far the policy has moved, in nats; the KL term is its leash."),
    "nll": ("negative log-likelihood", "Nats per token of the reference replies."),
    "loss": ("loss", ""),
}
"""Keys of the training log that are drawn: title and caption."""

CRITICS = {"explained_variance_h": ("V(h)", svg.SECOND), "explained_variance_hw": ("V(h, ω)", svg.ACCENT)}
"""Keys of the training log that say how well a critic predicts: name and colour."""

_COLOURS = {"pamdp": svg.ACCENT, "bc": svg.SECOND, "vanilla": svg.MUTED}
"""One colour per method in every figure; methods of other names share one."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure with its title and caption."""

    title: str
    svg: Markup
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A curve: a name for the legend, its points (x, y), and intervals at the points if there are any."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    spans: Sequence[tuple[float, float]] | None = None
    smooth: bool = False


def success(rows: Sequence[SuccessRate]) -> Iterator[Drawing]:
    """One panel of bars of r_w per judge, on one scale."""
    limits = _limits([row.rate for row in rows])
    in_order = [row for _, _, group in by_comparison(rows) for row in group]
    for i, judge in enumerate(dict.fromkeys(row.judge for row in rows)):
        mine = [row for row in in_order if row.judge == judge]
        named = [(f"{row.method} against {row.baseline}", row.rate) for row in mine]
        label, draw = f"Success rates under {judge}", partial(_bar, mine)
        yield _rows(judge, label, named, limits, draw, f"bars{i}", x_label="success rate")


def _bar(rows: Sequence[SuccessRate], axes: Axes, y: int) -> None:
    colour, rate = _COLOURS.get(rows[y].method.lower(), svg.THIRD), rows[y].rate
    axes.barh(y, rate.value, height=0.3, color=colour, alpha=0.9 if rate.sign else 0.45)
    _interval(axes, y, rate, svg.INK, 1.4)


def controls(rows: Sequence[Control]) -> Iterator[Drawing]:
    """One panel per judge, as judges may measure on different scales: dots, filled where it came out as it must."""
    for i, (judge, mine) in enumerate(grouped(rows, lambda row: row.judge).items()):
        named = [(row.name, row.estimate) for row in mine]
        limits = _limits([row.estimate for row in mine])
        digits = 2 if limits[1] - limits[0] > 0.3 else 3  # a control in nats per token is small
        yield _rows(judge, f"Controls under {judge}", named, limits, partial(_dot, mine), f"controls{i}", digits)


def _dot(rows: Sequence[Control], axes: Axes, y: int) -> None:
    colour = svg.ACCENT if rows[y].passed else svg.BAD
    _interval(axes, y, rows[y].estimate, colour, 2.2)
    inside = colour if rows[y].passed else svg.PAPER
    axes.plot(rows[y].mean, y, "o", color=colour, markersize=7, markerfacecolor=inside, markeredgewidth=1.6, zorder=4)


def turns(judgements: Sequence[Judgement], rows: Sequence[SuccessRate]) -> Iterator[Drawing]:
    """Success turn by turn of the report's method, a figure per baseline with a line per judge."""
    for i, (method, baseline, group) in enumerate(by_comparison(rows)):
        judges = {row.judge: by_turn(judgements, method, baseline, row.judge) for row in group if row.n}
        if method == primary(rows) and any(len(found) > 1 for found in judges.values()):
            title, lines = f"{method} against {baseline}", list[Line]()
            for k, (judge, found) in enumerate(judges.items()):
                points = [(turn + 1 + 0.12 * (k - (len(judges) - 1) / 2), e.value) for turn, e in found.items()]
                spans = [(e.low, e.high) for e in found.values()]
                lines.append(Line(_cut(judge, 28), points, svg.nth_colour(k), spans))
            yield _curves(title, lines, "turn of the dialogue", f"turns{i}", zero=True)


def training(metrics: Sequence[Metric]) -> Iterator[Drawing]:
    """The curves of every stage, in the order in which the stages ran; a loss only where no likelihood is logged."""
    for i, (stage, rows) in enumerate(grouped(metrics, lambda m: m.stage).items()):
        found = {key: points for key in CURVES if (points := _points(rows, key))}
        for key, points in found.items():
            if key == "loss" and (stage != "clone" or "nll" in found):
                continue  # a policy-gradient loss says nothing: its gradient does
            name, caption = CURVES[key]
            title = f"{STAGES.get(stage, stage)}: {name}"
            line = Line(name, points, svg.SECOND if stage == "clone" else svg.ACCENT, smooth=True)
            yield _curves(title, [line], "update", f"curve{i}{key}", zero=key == "reward", caption=caption)


def critics(metrics: Sequence[Metric]) -> Iterator[Drawing]:
    """Explained variance of both critics over every stage that logged it."""
    for i, (stage, rows) in enumerate(grouped(metrics, lambda m: m.stage).items()):
        lines, late = list[Line](), list[str]()
        for key, (name, colour) in CRITICS.items():
            if points := _points(rows, key):
                last = points[-max(1, len(points) // 5) :]
                late.append(f"{name} {signed(sum(y for _, y in last) / len(last))}")
                lines.append(Line(name, [(x, max(y, -1.0)) for x, y in points], colour, smooth=True))
        if lines:
            title = f"{STAGES.get(stage, stage)}: explained variance"
            caption = f"Mean over the last fifth: {', '.join(late)}. Values under −1 are drawn at −1."
            yield _curves(title, lines, "update", f"critics{i}", zero=True, caption=caption)


def _points(rows: Sequence[Metric], key: str) -> list[tuple[float, float]]:
    return [(float(m.step), m.values[key]) for m in rows if key in m.values]


def _curves(title: str, lines: Sequence[Line], x_label: str, prefix: str, zero: bool, caption: str = "") -> Drawing:
    """Curves: where a line is smooth, the raw values are faint and a running mean is over them; ZERO draws y = 0."""

    def paint(axes: Axes) -> None:
        axes.grid(axis="y", color=svg.GRID, linewidth=0.7)
        if zero:
            axes.axhline(0, color=svg.MUTED, linewidth=0.8)
        for line in lines:
            x, y = np.array(line.points, dtype=float).T
            dots = "o" if len(x) < 12 else ""
            if line.spans is not None:
                low, high = np.array(line.spans, dtype=float).T
                axes.vlines(x, low, high, color=line.colour, linewidth=1.6, alpha=0.55)
            if line.smooth and len(x) >= 12:
                axes.plot(x, y, color=line.colour, linewidth=0.8, alpha=0.35)
                # A centred running mean over about a tenth of the curve; at the ends over what is there.
                window = np.ones(2 * max(1, len(y) // 20) + 1)
                y = np.convolve(y, window, "same") / np.convolve(np.ones(len(y)), window, "same")
            axes.plot(x, y, color=line.colour, linewidth=1.8, marker=dots, markersize=4.5, label=line.name)
        axes.set(xlabel=x_label, xmargin=0.03)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if len(lines) > 1:
            where = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "borderaxespad": 0.2}
            axes.legend(ncols=len(lines), frameon=False, handlelength=1.2, columnspacing=1.4, **where)

    return Drawing(title, Markup(svg.draw(2.3, paint, f"{title}, by {x_label}", prefix)), caption)


def _rows(
    title: str,
    label: str,
    rows: Sequence[tuple[str, Estimate]],
    limits: tuple[float, float],
    mark: Callable[[Axes, int], None],
    prefix: str,
    digits: int = 2,
    x_label: str = "",
) -> Drawing:
    """One row below the other: what MARK draws, name and numbers over it; tick labels would eat a phone's width."""

    def paint(axes: Axes) -> None:
        across = axes.get_yaxis_transform()
        for y, (name, e) in enumerate(rows):
            numbers = f"{signed(e.value, digits)}  {interval(e, digits)}"
            axes.text(0, y - 0.3, _cut(name, 30), transform=across, va="center", fontweight="bold")
            axes.text(1, y - 0.3, numbers, transform=across, va="center", ha="right", color=svg.MUTED)
            axes.vlines(0, y - 0.19, y + 0.19, color=svg.MUTED, linewidth=1, zorder=2)
            mark(axes, y)
        axes.set(xlim=limits, ylim=(len(rows) - 0.6, -0.55), yticks=[], xlabel=x_label)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:+.2g}".replace("-", "−") if x else "0")

    said = "; ".join(f"{name} {signed(e.value)} {interval(e)}" for name, e in rows)
    return Drawing(title, Markup(svg.draw(0.6 + 0.52 * len(rows), paint, f"{label}: {said}", prefix)))


def _interval(axes: Axes, y: int, e: Estimate, colour: str, width: float) -> None:
    axes.plot([e.low, e.high], [y, y], "|-", color=colour, linewidth=width, markeredgewidth=width, markersize=7)


def _limits(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Limits that hold 0 and every interval, so that panels side by side can be compared."""
    ends = [0.0] + [x for e in estimates for x in (e.value, e.low, e.high) if math.isfinite(x)]
    pad = 0.06 * (max(ends) - min(ends) or 1)
    return min(ends) - pad, max(ends) + pad


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
