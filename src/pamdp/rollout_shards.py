"""Rollouts of several workers as one: who plays which users, and the order in which one worker would have played all.

Owns parting and merging, whoever the workers are, and doing both among processes. Actions and replies have seeds of
their own (rollout.py), so it does not matter which worker plays a dialogue; learning depends on the order of
transitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from pamdp import ranks
from pamdp.env.user import User
from pamdp.transitions import Rollout

T = TypeVar("T")
U = TypeVar("U", bound=User)


def played(users: Sequence[U], play: Callable[[Sequence[U]], Rollout], groups: int = 1) -> Rollout:
    """What PLAY, in GROUPS, makes of USERS: each process (ranks.py) plays its part of them, and all have the whole."""
    with ranks.agreed():
        own = play(split(users, ranks.world_size())[ranks.rank()])
    return merged(ranks.gather(own), [user.key for user in users], groups)


def split(items: Sequence[T], n: int) -> list[Sequence[T]]:
    """ITEMS for N workers, turn by turn, so that all have as much to do."""
    return [items[i::n] for i in range(n)]


def merged(parts: Sequence[Rollout], keys: Sequence[str], groups: int = 1) -> Rollout:
    """The rollout that `collect` in GROUPS gives of the users KEYS, from rollouts of parts of them."""
    if len(parts) == 1:
        return parts[0]
    place = {key: (i % groups, i) for i, key in enumerate(keys)}
    transitions = [t for part in parts for t in part.transitions]
    transitions.sort(key=lambda t: (t.t, *place[t.key], t.k))
    replied = {(t.key, t.t) for t in transitions}

    def order(name: tuple[str, int]) -> tuple[int, int, bool, int]:
        group, i = place[name[0]]
        # Nobody replies to a dialogue's last moment: it was read as soon as the turn before it had ended.
        return name[1], group, name in replied, i

    names = sorted((name for part in parts for name in part.moments), key=order)

    def joined(fields: Sequence[dict[tuple[str, int], T]]) -> dict[tuple[str, int], T]:
        found = {name: value for part in fields for name, value in part.items()}
        return {name: found[name] for name in names if name in found}

    return Rollout(
        transitions,
        joined([part.moments for part in parts]),
        joined([part.features_h for part in parts]),
        joined([part.features_hw for part in parts]),
        joined([part.dropped for part in parts]),
    )
