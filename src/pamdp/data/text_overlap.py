"""What replies and profiles have in common, in words: overlap and parroting.

Owns tokens and stop words (English). Knows nothing of files or reports.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+")
_STOP_TEXT = """
    a about above after again all almost along already also although always am among an and another any anything are
    around as at away back be because been before being below between both but by can cannot could did do does doing
    done down during each either else ever every few for from further get gets give go goes going got had has have
    having he her here hers herself him himself his how i if in into is it its itself just keep keeps kind know let
    like likes little lot make makes many may me might mine more most much must my myself near need neither never new
    no nor not nothing now of off often on once one only onto or other others our ours out over own people per put
    rather really same say says see she should since small so some something soon still such take takes than that the
    their theirs them themselves then there these they thing things this those though through time to too two toward
    under until up upon us use used uses very want wants was way we well were what when where whether which while who
    whom whose why will with within without would year years yet you your yours yourself
"""
_STOP = frozenset(_STOP_TEXT.split())
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
    places: dict[str, list[int]] = {}
    for n, word in enumerate(words(profile)):
        places.setdefault(word, []).append(n)
    best, runs = 0, dict[int, int]()
    for word in words(reply):
        runs = {n: runs.get(n - 1, 0) + 1 for n in places.get(word, ())}
        best = max(best, *runs.values(), 0)
    return best
