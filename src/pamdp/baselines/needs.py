"""What training data must hold for a method to learn from them, and the words for it where they do not.

Owns one function per need: it gives what is lacking, in one clause, or nothing. Knows no method.
"""

from __future__ import annotations

from collections.abc import Sequence

from pamdp.types import Dialogue


def nothing(train: Sequence[Dialogue]) -> str:
    """No need."""
    return ""


def preferred(train: Sequence[Dialogue]) -> str:
    """Somewhere a good reply to learn."""
    return "" if any(turn.preferred for d in train for turn in d.turns) else "no training turn has a preferred reply"


def pairs(train: Sequence[Dialogue]) -> str:
    """Somewhere a good and a bad reply to one history."""
    found = any(turn.preferred and turn.rejected for d in train for turn in d.turns)
    return "" if found else "no training turn has a preferred and a rejected reply"
