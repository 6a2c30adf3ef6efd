"""Who is talked with online: users of records, or of a pool of personas that no record stands behind.

Owns how many users a pool gives. Knows nothing of how users are played. Offline there is nothing to learn from people
who have said nothing, so whatever reads records goes on refusing a pool (data/load.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pamdp.config import Config
from pamdp.data import is_pool, load_pool, split_by_user, spread
from pamdp.errors import ConfigError
from pamdp.train.factory import Split, load_split
from pamdp.types import Dialogue


def load_users(config: Config, train: int = 0, test: int = 0) -> Split:
    """Users that teach and users that test, who share no profile.

    Args:
      train, test: most of either part, spread evenly; 0 for what the settings of the data say. Of a pool, where they
        say nothing either, every profile is one user.

    Raises:
      ConfigError: users of a pool are to begin with a message of their record, or there are not so many of them.
    """
    data = config.data
    if not is_pool(data.path):
        whole = load_split(data)
        return replace(whole, train=spread(whole.train, train), test=spread(whole.test, test))
    if config.online.opening != "own":
        raise ConfigError(
            f"{data.path} is a pool of personas, who have no first message on record; set online.opening=own"
        )
    if data.folds:
        raise ConfigError(f"{data.path} is a pool of personas, which has no topics to make folds of; set data.folds=0")
    train, test = train or data.train_dialogues, test or data.test_dialogues
    people = load_pool(data.path, data.split_seed, data.skip_bad)
    parts = split_by_user(people.dialogues, data.test_share, seed=data.split_seed)
    times = max(1, *(math.ceil(count / len(part)) for count, part in zip((train, test), parts, strict=True)))
    pool = load_pool(data.path, data.split_seed, data.skip_bad, times)

    def taken(part: Sequence[Dialogue], count: int) -> tuple[Dialogue, ...]:
        """All profiles of a part once before any comes again, whatever the other part needs."""
        names = {dialogue.user_id for dialogue in part}
        users = tuple(dialogue for dialogue in pool if dialogue.user_id in names)
        return spread(users[: max(1, math.ceil(count / len(part))) * len(part)], count)

    learn, evaluate = (taken(part, count) for part, count in zip(parts, (train, test), strict=True))
    return Split(learn, evaluate, pool.sha256, len(pool.skipped), pool.repaired)
