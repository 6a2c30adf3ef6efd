"""Matplotlib figures as SVG: each is a file of its own, or stands inside a page, whose style sets the colours.

Owns colours and type size. Knows nothing of what is drawn. The same numbers give the same bytes.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#22252b", "#6b6f78", "#d9d6ce", "#fffefb"
ACCENT, SECOND, THIRD, BAD = "#0f766f", "#b7791e", "#6d5aa8", "#b3403a"
VARIABLES = {
    "ink": INK, "muted": MUTED, "grid": GRID, "card": PAPER,
    "accent": ACCENT, "second": SECOND, "third": THIRD, "bad": BAD,
}  # fmt: skip
"""The variable of the page's style that stands for each colour."""

WIDTH = 4.1
"""Inches: at 96 pixels an inch a figure is readable on a phone and two stand side by side on a desk."""

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pamdp",
    "font.family": "sans-serif",
    "font.sans-serif": "DejaVu Sans",
    "font.size": 8.8,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.parse_math": False,  # a judge's name may hold a dollar sign
}


def nth_colour(index: int) -> str:
    """Colours for lines that have no colour of their own, such as judges."""
    return (ACCENT, THIRD, SECOND, MUTED)[index % 4]


def draw(height: float, paint: Callable[[Axes], None], label: str, prefix: str) -> str:
    """One figure of HEIGHT inches with one pair of axes, on which PAINT draws, as an `<svg>` element.

    LABEL is what a screen reader says; PREFIX stands before every id inside and is unique in the page.
    """
    out = io.StringIO()
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure.add_subplot())
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", out.getvalue().strip())
    return f'<svg role="img" aria-label="{html.escape(label)}"{svg[svg.index("<svg") + 4 :]}'
