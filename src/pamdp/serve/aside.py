"""Replies that a server asks for by itself, written in one batch with those of its users.

Owns how they are waited for. Knows nothing of what they are for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pamdp.engines.engine import Engine
from pamdp.engines.job import Ended, Event, Failed, Job, Numbers
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy
from pamdp.types import History

Write = Callable[[Policy, Sequence[History], Sampling], Sequence[str]]
"""Has a policy reply to some histories, greedily and under mean actions."""
CHECK = ""
"""The user in whose space a server keeps what it reads for itself; no key and no client's user has this name."""


def alone(policy: Policy, histories: Sequence[History], sampling: Sampling) -> Sequence[str]:
    """A `Write` where nobody else is to be replied to."""
    return policy.replies(histories, sampling)


def write_actions(
    engine: Engine,
    policy: Policy,
    history: History,
    sampling: Sampling,
    space: tuple[str, ...],
    actions: tuple[Numbers | None, ...] = (None,),
) -> Future[list[str]]:
    """The reply to HISTORY under each of some actions, None: the mean one; the PamdpError of a job that fails."""
    texts: dict[int, str] = {}
    found: Future[list[str]] = Future()

    def emit(event: Event) -> None:
        if isinstance(event, Failed):
            found.set_exception(event.error)
        elif isinstance(event, Ended):
            texts[event.index] = event.text
            if len(texts) == len(actions):
                found.set_result([texts[i] for i in range(len(actions))])

    engine.submit(Job(policy, history, sampling, space, emit, len(actions), actions=actions))
    return found


def among(engine: Engine, at_once: int) -> Write:
    """A `Write` that leaves room for others: at most so many replies at once. It waits, so it needs a thread."""

    def write(policy: Policy, histories: Sequence[History], sampling: Sampling) -> list[str]:
        space = CHECK, str(id(policy))

        def one(history: History) -> str:
            return write_actions(engine, policy, history, sampling, space).result()[0]

        try:
            with ThreadPoolExecutor(at_once) as pool:
                return list(pool.map(one, histories))
        finally:
            engine.forget(CHECK)

    return write
