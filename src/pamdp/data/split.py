"""Parts of a data set that share no user.

Owns the choice of test users and test topics, and folds over topics. Knows nothing of files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from pamdp.errors import ConfigError, DataError
from pamdp.types import Dialogue

By = Literal["user", "topic"]


class TrainTest(NamedTuple):
    """Dialogues to learn from, and dialogues of other users to test on."""

    train: tuple[Dialogue, ...]
    test: tuple[Dialogue, ...]


def split_dialogues(
    dialogues: Sequence[Dialogue], by: By = "user", test_share: float = 0.2, seed: int = 0
) -> TrainTest:
    """Train and test dialogues; all of one user, or of one topic, are on one side.

    Users (topics) are ranked by a hash of seed and name and the first of them test. The order of the dialogues does not
    matter, both parts keep it, and a user added later moves few others.

    Args:
      by: a dialogue's topic is its id up to the last colon (prefeval.py).
      test_share: share of the users (topics) that go into test; at least one on either side.
      seed: another seed, other test users.

    Raises:
      ConfigError: `by` is neither, or the share is not between 0 and 1.
      DataError: there are fewer than two users (topics), or a user talks on topics of both sides.
    """
    if by not in _KEYS:
        raise ConfigError(f"dialogues are split by {' or '.join(_KEYS)}, not by {by!r}")
    if not 0 < test_share < 1:
        raise ConfigError(f"test_share is {test_share}; it must lie between 0 and 1")
    ranked = _ranked(map(_KEYS[by], dialogues), seed)
    if len(ranked) < 2:
        raise DataError(f"{len(ranked)} {by}s cannot be split", fix=f"at least two {by}s are needed")
    return _parted(dialogues, by, ranked[: min(max(round(test_share * len(ranked)), 1), len(ranked) - 1)])


def split_by_user(dialogues: Sequence[Dialogue], test_share: float = 0.2, seed: int = 0) -> TrainTest:
    """`split_dialogues` by user."""
    return split_dialogues(dialogues, "user", test_share, seed)


def split_by_topic(dialogues: Sequence[Dialogue], folds: int, fold: int, seed: int = 0) -> TrainTest:
    """Train and test dialogues of one of FOLDS parts of the topics; over all folds every dialogue tests once.

    Topics are dealt to the folds in an order that depends on seed and names only, so folds differ by one topic at most.

    Raises:
      ConfigError: FOLD is none of 0 ... FOLDS - 1.
      DataError: there are fewer topics than folds, or a user talks in two folds.
    """
    topics = _ranked(map(_topic, dialogues), seed)
    if not 0 <= fold < folds:
        raise ConfigError(f"fold is {fold}; with {folds} folds it must lie in 0..{folds - 1}")
    if not 1 < folds <= len(topics):
        raise DataError(f"{len(topics)} topics cannot be split into {folds} folds", fix="2 folds or more, a topic each")
    return _parted(dialogues, "topic", topics[fold::folds])


def spread(dialogues: tuple[Dialogue, ...], count: int) -> tuple[Dialogue, ...]:
    """COUNT of the dialogues at even distances, so that topics and users of all parts are among them; 0 for all."""
    if not 0 < count < len(dialogues):
        return dialogues
    return tuple(dialogues[i * len(dialogues) // count] for i in range(count))


def _topic(dialogue: Dialogue) -> str:
    return dialogue.id.rpartition(":")[0]


_KEYS: dict[By, Callable[[Dialogue], str]] = {"user": lambda dialogue: dialogue.user_id, "topic": _topic}


def _ranked(names: Iterable[str], seed: int) -> list[str]:
    def rank(name: str) -> tuple[bytes, str]:
        return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest(), name

    return sorted(set(names), key=rank)


def _parted(dialogues: Sequence[Dialogue], by: By, test: Collection[str]) -> TrainTest:
    key, chosen = _KEYS[by], set(test)
    parts = TrainTest(
        tuple(dialogue for dialogue in dialogues if key(dialogue) not in chosen),
        tuple(dialogue for dialogue in dialogues if key(dialogue) in chosen),
    )
    if both := {d.user_id for d in parts.train} & {d.user_id for d in parts.test}:
        raise DataError(f"user {min(both)} talks on topics of two folds", fix="split these data by user")
    return parts
