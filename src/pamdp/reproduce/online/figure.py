"""Returns or gains over the steps of a dialogue, a line per method with intervals.

Owns what is drawn. Knows nothing of files. The same results give the same bytes.
"""

from __future__ import annotations

import math

from matplotlib.axes import Axes

from pamdp.evaluation import svg
from pamdp.evaluation.tables import signed
from pamdp.reproduce.online.results import TITLES, OnlineResults

MARKS = "osD^vPX*"
"""Colours repeat after four methods; marks do not."""


def draw_steps(results: OnlineResults, target: str, judge: str) -> str:
    """The figure under one judge, as SVG."""
    mine = [curve for curve in results.curves if curve.judge == judge]

    def draw(axes: Axes) -> None:
        axes.grid(axis="y", color=svg.GRID, linewidth=0.7)
        axes.axhline(0, color=svg.MUTED, linewidth=0.8)
        for i, curve in enumerate(mine):
            shown = curve.returns if target == "table3" else curve.gains
            at = [t + 1 + 0.07 * (i - (len(mine) - 1) / 2) for t in range(len(shown))]
            colour = svg.nth_colour(i)
            for x, e in zip(at, shown, strict=True):
                if math.isfinite(e.low):
                    axes.vlines(x, e.low, e.high, color=colour, linewidth=1.2, alpha=0.5)
            axes.plot(
                at, [e.value for e in shown], color=colour, marker=MARKS[i % len(MARKS)], markersize=4, linewidth=1.3,
                label=curve.method,
            )  # fmt: skip
        axes.set_xticks(range(1, results.horizon + 1))
        axes.set_xlabel(f"step; judged by {judge}")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4, frameon=False, handlelength=1.2)

    last = "; ".join(f"{c.method} {signed((c.returns if target == 'table3' else c.gains)[-1].value, 3)}" for c in mine)
    return svg.draw(2.6, draw, f"{TITLES[target]}, judged by {judge}, last step: {last}", target) + "\n"
