"""The form of a reply, by rule: whether it begins and ends whole, and whether it runs in circles.

Owns where a sentence ends, and how a reply that ran out of tokens is cut back to its last whole sentence. Replies of
every method go through that (models/policy.py), so no comparison turns on who was broken off. The rules see only what
is plain to see; readers see more (evaluation/readings.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

_END = re.compile(r"""[.!?\u2026]+["'\u201d\u2019)\]*]*(?=\s|$)""")
_ABBREVIATION = re.compile(r"(?:\b(?i:mr|mrs|ms|dr|st|vs|e\.g|i\.e)|\b[A-HJ-Z]|(?:^|\n)\s*\d+)\.$")
_START = re.compile(r"""["'\u201c\u2018(\[*]*(?:\w|\$)""")
LOOP = 0.4
"""Share of pairs of neighbouring words that stood before, from which a reply runs in circles."""


def ends_whole(text: str) -> bool:
    """Whether a text stops where a sentence does."""
    return any(end == len(text.rstrip()) for end in _ends(text))


def starts_whole(text: str) -> bool:
    """Whether a text begins with a word; a stray comma or end of another sentence does not."""
    return _START.match(text.lstrip()) is not None


def whole_sentences(text: str) -> str:
    """The text up to its last whole sentence; as it is where it holds none."""
    ends = _ends(text)
    return text[: ends[-1]].rstrip() if ends else text


def form(text: str) -> int:
    """The grade of form that a reader would give at most: 0 garbled, 1 blemished, 2 well formed."""
    words = re.findall(r"\w+", text.lower())
    pairs = Counter(pairwise(words))
    circles = sum(n - 1 for n in pairs.values()) / max(1, len(words) - 1)
    digits = sum(letter.isdigit() for letter in text) / max(1, len(text))
    if not words or circles >= LOOP or digits > 0.2:
        return 0
    return 2 if starts_whole(text) and ends_whole(text) else 1


def shares(texts: Iterable[str]) -> dict[str, float]:
    """Shares of replies that are `garbled` and `blemished`."""
    found = Counter(map(form, texts))
    n = max(1, found.total())
    return {"garbled": found[0] / n, "blemished": found[1] / n}


def _ends(text: str) -> list[int]:
    """Where sentences end; the mark of an abbreviation or of a list's number is no end."""
    return [m.end() for m in _END.finditer(text) if not _ABBREVIATION.search(text[: m.start() + 1])]
