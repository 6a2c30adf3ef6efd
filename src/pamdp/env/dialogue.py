"""The dialogue environment: many dialogues that advance together.

Owns turns, horizon and ends. Knows nothing of policies; composed of users and a reward, never subclassed. The horizon T
truncates (values are bootstrapped), a finished dialogue terminates.
"""

from __future__ import annotations

from collections.abc import Sequence

from pamdp.env.reward import Reward
from pamdp.env.user import User
from pamdp.types import History, Outcome, TimeStep


class DialogueEnv:
    """Vectorised reset/step over users.

    Args:
      users: one for each dialogue; keys must be distinct.
      reward: scores replies.
      horizon: T, most turns of a dialogue, or None for no limit.
    """

    def __init__(self, users: Sequence[User], reward: Reward, horizon: int | None = None) -> None:
        self.users = {user.key: user for user in users}
        if len(self.users) != len(users):
            raise ValueError("two users of one environment share a key")
        self.reward, self.horizon = reward, horizon

    def reset(self) -> list[TimeStep]:
        """The first moment of every dialogue."""
        return [self._moment(user, 0, user.start()) for user in self.users.values()]

    def step(self, moments: Sequence[TimeStep], replies: Sequence[Sequence[str]]) -> list[list[Outcome]]:
        """What comes of the replies to MOMENTS; several replies to one moment are alternatives.

        The first of several alternatives is the one that is said: it decides how the dialogue goes on.
        """
        flat = [(moment, reply) for moment, group in zip(moments, replies, strict=True) for reply in group]
        rewards = iter(self.reward([m for m, _ in flat], [r for _, r in flat]))
        out = []
        for moment, group in zip(moments, replies, strict=True):
            user = self.users[moment.key]
            after = user.answer(moment.history, group[0])
            following = None if after is None else self._moment(user, moment.t + 1, after)
            last = following is not None and self.horizon is not None and moment.t + 1 >= self.horizon
            out.append([Outcome(next(rewards), following, last) for _ in group])
        return out

    def _moment(self, user: User, t: int, history: History) -> TimeStep:
        return TimeStep(user.key, t, history, user.profile(history))
