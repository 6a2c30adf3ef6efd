"""Scores of single replies as cells and sentences.

Owns their spelling. The rest of a table is spelled in render.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pamdp.evaluation.scores import ScoreReport
from pamdp.evaluation.significance import Estimate
from pamdp.evaluation.tables import UNKNOWN_TEXT, interval, signed
from pamdp.judges.scores import CATEGORIES

SCORES = (
    "method", "scorer", "rating (1-5)", "per turn", "by turn", *CATEGORIES, "replies", "no rating", "no category"
)  # fmt: skip


def score_cells(s: ScoreReport) -> list[str]:
    """One row: the rating and what it gains per turn, with intervals, then the shares of the categories."""
    shares = [_share(s.categories[c]) if c in s.categories else UNKNOWN_TEXT for c in CATEGORIES]
    by_turn = " ".join(UNKNOWN_TEXT if math.isnan(x) else f"{x:.2f}" for x in s.by_turn) or UNKNOWN_TEXT
    counts = (s.n, s.masked, s.unread)
    return [s.method, s.scorer, _plain(s.rating), _gain(s.slope), by_turn, *shares, *map(str, counts)]


def score_sentences(scores: Sequence[ScoreReport], scorers: Sequence[tuple[str, str, float, float, int]]) -> list[str]:
    """How to read the rows, the shares of replies that keep to the preference, and whether two scorers agree."""
    said = [
        "Rating: how well a reply suits its person, ALOE's scale; per turn: its least-squares slope over the turns. "
        "Intervals are over users."
    ]
    for s in scores:
        if math.isfinite(s.followed.value):
            said.append(f"{s.method} keeps to the preference in {_plain(s.followed)} of its replies, says {s.scorer}.")
    for first, second, rating, category, n in scorers:
        kappas = f"κ of ratings {_kappa(rating)}, of categories {_kappa(category)}"
        said.append(f"{first} and {second}: {kappas}, on {n} replies that both rated.")
    return said


def _share(x: float) -> str:
    return f"{100 * x:.0f} %"


def _kappa(x: float) -> str:
    return UNKNOWN_TEXT if math.isnan(x) else signed(x)


def _plain(e: Estimate) -> str:
    if not math.isfinite(e.value):
        return UNKNOWN_TEXT
    return f"{e.value:.2f}" + (f" [{e.low:.2f}, {e.high:.2f}]" if math.isfinite(e.low) else "")


def _gain(e: Estimate) -> str:
    return UNKNOWN_TEXT if not math.isfinite(e.value) else f"{signed(e.value)} {interval(e)}"
