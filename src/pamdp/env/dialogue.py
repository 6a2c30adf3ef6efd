"""The dialogue environment of eq. 16: many dialogues that advance together.

Owns turns, horizon, ends and what becomes of a user or profiler that has no usable answer. Knows nothing of policies;
composed of users and a reward, never subclassed. The horizon T truncates (values are bootstrapped), a finished dialogue
terminates. Users that have to be waited for are asked all at the same time, and while the reward is judged.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from inspect import iscoroutinefunction
from typing import TypeVar

from pamdp.async_bridge import at_once, done, join, settle, start
from pamdp.env.reward import Reward
from pamdp.env.user import User
from pamdp.errors import AnswerError
from pamdp.prompts.render import load
from pamdp.types import History, Message, Outcome, Persona, TimeStep

T = TypeVar("T")


class DialogueEnv:
    """Vectorised reset/step over users.

    Args:
      users: one for each dialogue; keys must be distinct.
      reward: None: every reward is None.
      horizon: T, most turns of a dialogue, or None for no limit.
    """

    def __init__(self, users: Sequence[User], reward: Reward | None = None, horizon: int | None = None) -> None:
        self.users = {user.key: user for user in users}
        if len(self.users) != len(users):
            raise ValueError("two users of one environment share a key")
        self.reward, self.horizon = reward, horizon

    def reset(self) -> list[TimeStep]:
        """The first moment of every dialogue."""
        return [opening.result() for opening in self.open(list(self.users))]

    def step(self, moments: Sequence[TimeStep], replies: Sequence[Sequence[str]]) -> list[list[Outcome]]:
        """What comes of the replies to MOMENTS; several replies to one moment are alternatives.

        The first of several alternatives is the one that is said: it decides how the dialogue goes on.
        """
        return [outcomes.result() for outcomes in self.begin(moments, replies)]

    def open(self, keys: Sequence[str]) -> list[Future[TimeStep]]:
        """The first moments of some dialogues, under way."""
        return [self._going(user, self._open(user)) for user in (self.users[key] for key in keys)]

    def begin(self, moments: Sequence[TimeStep], replies: Sequence[Sequence[str]]) -> list[Future[list[Outcome]]]:
        """What `step` gives, under way; where a model cannot be reached, that future alone has an EndpointError."""
        following = [
            self._going(self.users[moment.key], self._follow(self.users[moment.key], moment, group[0]))
            for moment, group in zip(moments, replies, strict=True)
        ]
        nobody = [done(list[float | None]([None] * len(group))) for group in replies]
        rewards = self.reward.begin(moments, replies) if self.reward else nobody
        return [join(self._outcomes, *each) for each in zip(following, rewards, strict=True)]

    async def _open(self, user: User) -> TimeStep:
        stock = False
        try:
            history = await settle(user.start())
        except AnswerError:
            history, stock = (Message("user", load("user_greets")),), True
        return await self._moment(user, 0, history, Persona(), stock)

    async def _follow(self, user: User, moment: TimeStep, reply: str) -> TimeStep | None:
        stock = False
        try:
            after = await settle(user.answer(moment.history, reply))
        except AnswerError:
            # The dialogue goes on, so that no later turn is lost; what led here is masked, since nobody answered it.
            after = (*moment.history, Message("assistant", reply), Message("user", load("user_stuck")))
            stock = True
        return None if after is None else await self._moment(user, moment.t + 1, after, moment.privileged, stock)

    async def _moment(self, user: User, t: int, history: History, before: Persona, stock: bool) -> TimeStep:
        rejected = getattr(user, "rejected", lambda _: ())(t)
        try:
            profile, known = await settle(user.profile(history)), True
        except AnswerError:
            profile, known = before, False
        return TimeStep(user.key, t, history, profile, known, stock, rejected)

    def _outcomes(self, after: TimeStep | None, rewards: Sequence[float | None]) -> list[Outcome]:
        if after is None:
            return [Outcome(reward, None) for reward in rewards]
        last = self.horizon is not None and after.t >= self.horizon
        return [Outcome(None if after.stock else reward, after, last) for reward in rewards]

    @staticmethod
    def _going(user: User, work: Coroutine[object, object, T]) -> Future[T]:
        """A user that need not be waited for is asked here and now: a person can be interrupted only in this thread."""
        return start(work) if iscoroutinefunction(user.answer) else at_once(work)
