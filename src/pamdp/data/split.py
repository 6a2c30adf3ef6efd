"""Parts of a data set that share no user.

Owns the choice of test users and test topics, and folds over topics. Knows nothing of files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence, Set
from typing import Literal, NamedTuple

from pamdp.errors import ConfigError, DataError
from pamdp.types import Dialogue

By = Literal["user", "topic"]


class TrainTest(NamedTuple):
    """Dialogues to learn from, and dialogues of other users to test on."""

    train: tuple[Dialogue, ...]
    test: tuple[Dialogue, ...]


def split_by_user(dialogues: Sequence[Dialogue], test_share: float = 0.2, seed: int = 0, by: By = "user") -> TrainTest:
    """Train and test dialogues; all dialogues of one user (or topic) are on one side.

    Users are ranked by a hash of seed and user id and the first of them are the test users. The order of the dialogues
    does not matter, both parts keep it, and a user added later moves few others.

    Args:
      test_share: share of the users that go into test; at least one user on either side.
      by: "topic" takes topics for users; they are told apart as in `split_by_topic`.

    Raises:
      ConfigError: the share is not between 0 and 1, or `by` is something else.
      DataError: there are fewer than two users, or one of them talks on topics of both sides.
    """
    if by not in _KEYS:
        raise ConfigError(f"dialogues cannot be split by {by!r}; there are: {', '.join(_KEYS)}")
    ranked = _ranked(dialogues, by, seed)
    if len(ranked) < 2:
        raise DataError(f"{len(ranked)} {by}s cannot be split", fix=f"at least two {by}s are needed")
    if not 0 < test_share < 1:
        raise ConfigError(f"test_share is {test_share}; it must lie between 0 and 1")
    count = min(max(round(test_share * len(ranked)), 1), len(ranked) - 1)
    return _parted(dialogues, by, {*ranked[:count]})


def split_by_topic(dialogues: Sequence[Dialogue], folds: int, fold: int, seed: int = 0) -> TrainTest:
    """Train and test dialogues of one of FOLDS parts of the topics; over all folds every dialogue tests once.

    A dialogue's topic is its id up to the last colon (data/prefeval.py). Topics are dealt to the folds in an order that
    depends on seed and names only, so folds differ by one topic at most.

    Raises:
      ConfigError: FOLD is none of 0 ... FOLDS - 1.
      DataError: there are fewer topics than folds, or a user talks in two folds.
    """
    topics = _ranked(dialogues, "topic", seed)
    if not 0 <= fold < folds:
        raise ConfigError(f"fold is {fold}; with {folds} folds it must lie in 0..{folds - 1}")
    if not 1 < folds <= len(topics):
        raise DataError(f"{len(topics)} topics cannot be split into {folds} folds", fix="2 folds or more, a topic each")
    return _parted(dialogues, "topic", {*topics[fold::folds]})


def spread(dialogues: tuple[Dialogue, ...], count: int) -> tuple[Dialogue, ...]:
    """COUNT of the dialogues at even distances, so that topics and users of all parts are among them; 0 for all."""
    if not 0 < count < len(dialogues):
        return dialogues
    return tuple(dialogues[i * len(dialogues) // count] for i in range(count))


_KEYS: dict[By, Callable[[Dialogue], str]] = {"user": lambda d: d.user_id, "topic": lambda d: d.id.rpartition(":")[0]}


def _ranked(dialogues: Sequence[Dialogue], by: By, seed: int) -> list[str]:
    def rank(name: str) -> tuple[bytes, str]:
        return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest(), name

    return sorted(set(map(_KEYS[by], dialogues)), key=rank)


def _parted(dialogues: Sequence[Dialogue], by: By, names: Set[str]) -> TrainTest:
    tests = [_KEYS[by](dialogue) in names for dialogue in dialogues]
    train = tuple(dialogue for dialogue, test in zip(dialogues, tests, strict=True) if not test)
    test = tuple(dialogue for dialogue, test in zip(dialogues, tests, strict=True) if test)
    if both := {d.user_id for d in train} & {d.user_id for d in test}:
        raise DataError(f"user {min(both)} talks on topics of both parts", fix="split these data by user")
    return TrainTest(train, test)
