"""What replies and profiles have in common, in words: overlap and parroting.

Owns tokens and stop words (English). Knows nothing of files or reports.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from importlib.resources import files

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+")
_STOP = frozenset((files("pamdp.data") / "stop_words.txt").read_text(encoding="utf-8").split())
_ENDINGS = ("ings", "ing", "ies", "ied", "es", "ed", "s", "y", "e")


def words(text: str) -> list[str]:
    """The words and numbers of a text in small letters, without possessive endings."""
    return [re.sub(r"['’]s$", "", word) for word in _WORD.findall(text.casefold())]


def content_words(text: str) -> set[str]:
    """The words that carry meaning, cut to a rough stem: "baker" stays, "bakes" and "baking" are one."""
    return {_stem(word) for word in words(text) if word not in _STOP and len(word) > 1}


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def longest_run(profile: str, reply: str) -> int:
    """How many words in a row the reply takes from the profile, at most."""
    return SequenceMatcher(None, words(profile), words(reply), autojunk=False).find_longest_match().size
