"""Parts of a data set that share no user.

Owns the choice of test users, and folds over topics. Knows nothing of files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pamdp.errors import ConfigError, DataError
from pamdp.types import Dialogue


def split_by_user(
    dialogues: Sequence[Dialogue], test_share: float | None = None, test_users: int | None = None, seed: int = 0
) -> tuple[tuple[Dialogue, ...], tuple[Dialogue, ...]]:
    """Train and test dialogues; all dialogues of one user are on one side.

    Users are ranked by a hash of seed and user id and the first of them are the test users. The order of the dialogues
    does not matter, both parts keep it, and a user added later moves few others.

    Args:
      test_share: share of the users that go into test, 0.2 if nothing is given; at least one user on either side.
      test_users: their number instead.
      seed: another seed, other test users.

    Raises:
      ConfigError: both are given, or either is out of range.
      DataError: there are fewer than two users.
    """
    if test_share is not None and test_users is not None:
        raise ConfigError("give test_share or test_users, not both")
    ranked = sorted({dialogue.user_id for dialogue in dialogues}, key=lambda user: _rank(user, seed))
    if len(ranked) < 2:
        raise DataError(f"{len(ranked)} users cannot be split", fix="at least two users are needed")
    if test_users is None:
        share = 0.2 if test_share is None else test_share
        if not 0 < share < 1:
            raise ConfigError(f"test_share is {share}; it must lie between 0 and 1")
        test_users = min(max(round(share * len(ranked)), 1), len(ranked) - 1)
    if not 0 < test_users < len(ranked):
        raise ConfigError(f"test_users is {test_users}; with {len(ranked)} users it must lie in 1..{len(ranked) - 1}")
    chosen = set(ranked[:test_users])
    train = tuple(dialogue for dialogue in dialogues if dialogue.user_id not in chosen)
    return train, tuple(dialogue for dialogue in dialogues if dialogue.user_id in chosen)


def split_by_topic(
    dialogues: Sequence[Dialogue], folds: int, fold: int, seed: int = 0
) -> tuple[tuple[Dialogue, ...], tuple[Dialogue, ...]]:
    """Train and test dialogues of one of FOLDS parts of the topics; over all folds every dialogue tests once.

    A dialogue's topic is its id up to the last colon (data/prefeval.py). Topics are dealt to the folds in an order that
    depends on seed and names only, so folds differ by one topic at most.

    Raises:
      ConfigError: FOLD is none of 0 ... FOLDS - 1.
      DataError: there are fewer topics than folds, or a user talks in two folds.
    """
    topics = sorted({_topic(dialogue) for dialogue in dialogues}, key=lambda topic: _rank(topic, seed))
    if not 0 <= fold < folds:
        raise ConfigError(f"fold is {fold}; with {folds} folds it must lie in 0..{folds - 1}")
    if not 1 < folds <= len(topics):
        raise DataError(f"{len(topics)} topics cannot be split into {folds} folds", fix="2 folds or more, a topic each")
    chosen = set(topics[fold::folds])
    train = tuple(dialogue for dialogue in dialogues if _topic(dialogue) not in chosen)
    test = tuple(dialogue for dialogue in dialogues if _topic(dialogue) in chosen)
    if both := {d.user_id for d in train} & {d.user_id for d in test}:
        raise DataError(f"user {min(both)} talks on topics of two folds", fix="split these data by user")
    return train, test


def spread(dialogues: tuple[Dialogue, ...], count: int) -> tuple[Dialogue, ...]:
    """COUNT of the dialogues at even distances, so that topics and users of all parts are among them; 0 for all."""
    if not 0 < count < len(dialogues):
        return dialogues
    return tuple(dialogues[i * len(dialogues) // count] for i in range(count))


def _topic(dialogue: Dialogue) -> str:
    return dialogue.id.rpartition(":")[0]


def _rank(user: str, seed: int) -> tuple[bytes, str]:
    return hashlib.sha256(f"{seed}:{user}".encode("utf-8", "surrogatepass")).digest(), user
