"""Dialogues parted among workers, and what came of them as one again.

Owns which dialogues go together, the order of what is merged (that of one process that plays them all, so that whatever
learns from it learns the same), and both among processes that were started together (ranks.py). Knows nothing of
workers that are sent their part (launch.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import TypeVar

from pamdp import ranks
from pamdp.env.user import User
from pamdp.transitions import Rollout

T = TypeVar("T")
U = TypeVar("U", bound=User)


def played(users: Sequence[U], play: Callable[[Sequence[U]], Rollout], groups: int = 1) -> Rollout:
    """What PLAY, in GROUPS, makes of USERS: each process (ranks.py) plays its part of them, and all have the whole."""
    if (n := ranks.world_size()) == 1:
        return play(users)
    with ranks.agreed():
        own = play(users[ranks.rank() :: n])
    return merged(ranks.gather(own), [user.key for user in users], groups)


def deal(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Items dealt out in turn, to no more parts than there are items: as `collect` parts dialogues into groups."""
    return [items[i::parts] for i in range(min(parts, len(items)))]


def blocks(items: Sequence[T], parts: int, most: int) -> list[Sequence[T]]:
    """Neighbouring items in at least so many PARTS, as far as there are items, of at most MOST each."""
    size = max(1, min(most, ceil(len(items) / max(parts, 1))))
    return [items[start : start + size] for start in range(0, len(items), size)]


def merged(parts: Sequence[Rollout], keys: Sequence[str], groups: int) -> Rollout:
    """Rollouts of some dialogues each as the one of all of them, KEYS, that `collect` gives with so many GROUPS.

    Turn after turn and group after group; of a group, states that nobody replies to come before the others, and
    otherwise dialogues stand as in KEYS.
    """
    place = {key: i for i, key in enumerate(keys)}
    transitions = [t for part in parts for t in part.transitions]
    replied = {(t.key, t.t) for t in transitions}

    def order(state: tuple[str, int]) -> tuple[int, int, bool, int]:
        key, t = state
        return t, place[key] % groups, state in replied, place[key] // groups

    transitions.sort(key=lambda t: (*order((t.key, t.t)), t.k))
    states = sorted((state for part in parts for state in part.moments), key=order)
    moments = {state: moment for part in parts for state, moment in part.moments.items()}
    h = {state: x for part in parts for state, x in part.features_h.items()}
    hw = {state: x for part in parts for state, x in part.features_hw.items()}
    dropped = {state: n for part in parts for state, n in part.dropped.items()}
    return Rollout(
        transitions, {s: moments[s] for s in states}, {s: h[s] for s in states},
        {s: hw[s] for s in states if s in hw}, {s: dropped[s] for s in states if s in dropped},
    )  # fmt: skip
