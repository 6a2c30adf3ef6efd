"""One dialogue as a Gymnasium environment: text in, text out, the profile in info["privileged"] and nowhere else.

Owns the two spaces and the translation. Knows nothing of how users and rewards come about: it plays a DialogueEnv of
one user. An observation is the history as text; a masked reward is NaN and `info["masked"]` says so, because 0 would be
a verdict.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TypeAlias

import gymnasium
from gymnasium.spaces import Text

from pamdp.env.dialogue import DialogueEnv
from pamdp.env.reward import Reward
from pamdp.env.user import User
from pamdp.errors import ConfigError
from pamdp.prompts.render import transcript
from pamdp.types import TimeStep

Info: TypeAlias = dict[str, object]


class AnyText(Text):
    """All texts up to a length, whatever their characters; samples are letters, digits and spaces."""

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length, min_length=0, charset=frozenset(string.ascii_letters + string.digits + " "))

    def contains(self, x: object) -> bool:
        """Whether X is a text of at most the greatest length."""
        return isinstance(x, str) and len(x) <= self.max_length


class DialogueGym(gymnasium.Env[str, str]):
    """A dialogue with one of some users; `reset` draws the user, or takes options={"user": key}.

    Args:
      reward: None: every reward is masked.
      horizon: T, most turns.
      max_reply, max_history: characters of the longest action and observation.
    """

    def __init__(
        self,
        users: Sequence[User],
        reward: Reward | None,
        horizon: int = 6,
        max_reply: int = 4_000,
        max_history: int = 100_000,
    ) -> None:
        self.users = {user.key: user for user in users}
        self.reward, self.horizon, self.max_history = reward, horizon, max_history
        self.action_space = AnyText(max_reply)
        self.observation_space = AnyText(max_history)
        self._env: DialogueEnv | None = None
        self._moment: TimeStep | None = None

    def reset(self, *, seed: int | None = None, options: Mapping[str, object] | None = None) -> tuple[str, Info]:
        """A new dialogue: h_0, and who the user is; a ConfigError where the options name one that is not there."""
        super().reset(seed=seed)
        if (key := (options or {}).get("user")) is None:
            key = list(self.users)[int(self.np_random.integers(len(self.users)))]
        if key not in self.users:
            raise ConfigError(f"no user {key!r} in this environment")
        self._env = DialogueEnv([self.users[str(key)]], self.reward, self.horizon)
        (self._moment,) = self._env.reset()
        return self._seen(self._moment)

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Say ACTION: the next history, the reward (NaN where masked), whether the user ended or T was reached.

        A ConfigError where no dialogue is under way.
        """
        if self._env is None or self._moment is None:
            raise ConfigError("this dialogue is over; reset the environment to begin another")
        [[outcome]] = self._env.step([self._moment], [[action]])
        seen, info = self._seen(outcome.next or self._moment)
        self._moment = None if outcome.truncated else outcome.next
        reward = math.nan if outcome.reward is None else float(outcome.reward)
        return seen, reward, outcome.next is None, outcome.truncated, info | {"masked": outcome.reward is None}

    def _seen(self, moment: TimeStep) -> tuple[str, Info]:
        # The newest is kept: it is what the reply answers.
        text = transcript(moment.history)[-self.max_history :]
        return text, {"user": moment.key, "turn": moment.t, "privileged": asdict(moment.privileged)}
