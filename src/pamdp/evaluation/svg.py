"""Matplotlib figures as SVG text that belongs inside a page: themed by CSS, small, equal byte for byte.

Owns colours, type size and the clean-up of matplotlib's output. Knows nothing of what is drawn.
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

# Each colour stands in for a CSS variable; its own value is what a viewer without the page's style shows.
INK, MUTED, GRID, PAPER = "#22252b", "#6b6f78", "#d9d6ce", "#fffefb"
ACCENT, SECOND, THIRD, BAD = "#0f766f", "#b7791e", "#6d5aa8", "#b3403a"
_VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "card",
    ACCENT: "accent", SECOND: "second", THIRD: "third", BAD: "bad",
}  # fmt: skip

_CYCLE = (ACCENT, THIRD, SECOND, MUTED)

WIDTH = 4.1
"""Inches: at 96 pixels an inch a figure is readable on a phone and two stand side by side on a desk."""

SIZE = 8.8

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pamdp",
    "font.family": "DejaVu Sans",
    "font.size": SIZE,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.parse_math": False,  # a judge's name may hold a dollar sign
}


def nth_colour(index: int) -> str:
    """Colours for lines that have no colour of their own, such as judges."""
    return _CYCLE[index % len(_CYCLE)]


def draw(height: float, paint: Callable[[Axes], None], label: str, prefix: str) -> str:
    """One figure with one pair of axes, as inline SVG.

    Args:
      height: inches.
      paint: called with the axes; draws on them.
      label: what a screen reader says.
      prefix: of every id inside, unique in the page.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0)
        paint(axes)
        out = io.StringIO()
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(out.getvalue(), label, prefix)


def standalone(svg: str) -> str:
    """An inline figure as a file of its own: on white, in a font that every reader has."""
    # Colours that a page may set are plain here. Markup's own methods would escape what is put around it.
    svg = re.sub(r"var\(--[\w-]+, (#?\w+)\)", r"\1", str.__str__(svg))
    return f'<svg style="background: #fff; font-family: sans-serif" {str.removeprefix(svg, "<svg ")}\n'


def _inline(svg: str, label: str, prefix: str) -> str:
    """The `<svg>` element alone: no prologue, page-wide style, metadata or font list, no id that stands twice."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r' id="', f' id="{prefix}-', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\g<1>#{prefix}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = re.sub(r' (?:d|x|y|width|height|transform)="[^"]*"', lambda m: _shorter(m.group()), svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable}, {colour})")
    svg = re.sub(r"\s*\n\s*", " ", svg).replace("> <", "><").strip()
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)


def _shorter(attribute: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda m: f"{float(m.group()):.2f}".rstrip("0").rstrip("."), attribute)
