"""A reply that ran out of tokens, cut back to its last whole sentence.

Owns where a sentence ends. Every method's replies go through it (models/policy.py), so no comparison turns on who was
broken off.
"""

from __future__ import annotations

import re

_END = re.compile(r"""[.!?\u2026]+["'\u201d\u2019)\]*]*(?=\s|$)""")
_ABBREVIATION = re.compile(r"(?:\b(?i:mr|mrs|ms|dr|st|vs|e\.g|i\.e)|\b[A-HJ-Z]|(?:^|\n)\s*\d+)\.$")


def ends_whole(text: str) -> bool:
    """Whether a text stops where a sentence does."""
    return any(end == len(text.rstrip()) for end in _ends(text))


def whole_sentences(text: str) -> str:
    """The text up to its last whole sentence; as it is where it holds none."""
    ends = _ends(text)
    return text[: ends[-1]].rstrip() if ends else text


def _ends(text: str) -> list[int]:
    """Where sentences end; the mark of an abbreviation or of a list's number is no end."""
    return [m.end() for m in _END.finditer(text) if not _ABBREVIATION.search(text[: m.start() + 1])]
