"""Miniature learning at workers: what they build, and faults that they can be given.

Run as a program it learns in a folder at two workers of its own Ray, and dies when so many lines are in its journal:
`python -m tests.tools.launching RUN LINES`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pamdp.config import Config
from pamdp.journal import Journal, _Record
from pamdp.launcher_config import LauncherConfig
from pamdp.llm.chat import Around, ChatModel, Completion, Decoding
from pamdp.llm.ledger import Role
from pamdp.llm.limits import Allowed, Limiter
from pamdp.ray_launcher import RayLauncher
from pamdp.train.offline import REWARD
from pamdp.train.site import Site
from pamdp.types import Message
from tests.tools.learning import learn, make_dialogues, make_learning, make_policy, make_world
from tests.tools.methods import VowelJudge

WORKERS = LauncherConfig(kind="ray", workers=2)


class Once(Around):
    """A chat model that takes its process with it, the first time that any has had so many calls."""

    def __init__(self, model: ChatModel, calls: int, mark: Path) -> None:
        super().__init__(model)
        self.left, self.mark = calls, mark

    async def complete(
        self, messages: Sequence[Message], decoding: Decoding = Decoding(), *, seed: int = 0
    ) -> Completion:
        self.left -= 1
        if self.left < 0 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return await self.model.complete(messages, decoding, seed=seed)


class Noted(Around):
    """A chat model that writes into a file when a call begins and when it ends."""

    def __init__(self, model: ChatModel, file: Path) -> None:
        super().__init__(model)
        self.file = file

    async def complete(
        self, messages: Sequence[Message], decoding: Decoding = Decoding(), *, seed: int = 0
    ) -> Completion:
        self._note("begins")
        await asyncio.sleep(0.2)
        answer = await self.model.complete(messages, decoding, seed=seed)
        self._note("ends")
        return answer

    def _note(self, what: str) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(f"{what} {os.getpid()}\n")


def make_site(
    config: Config, limiter: Limiter, dies: tuple[int, Path] | None = None, notes: Path | None = None
) -> Site:
    """What plays with scripted models: the judge dies after so many calls, or its calls are noted, one at a time."""

    def wrap(role: Role, model: ChatModel) -> ChatModel:
        if role == "judge" and dies is not None:
            return Once(model, *dies)
        if role == "judge" and notes is not None:
            return limiter(Noted(model, notes), Allowed(("judge",), 1, 1e9, 1e9))
        return model

    world = make_world(config, wrap=wrap)
    return Site(make_policy(config), None, world.ledger, world, {REWARD: VowelJudge(), "vowels": VowelJudge()})


def site_of(config: Config, dies: tuple[int, Path] | None, notes: Path | None, limiter: Limiter) -> Site:
    """`make_site`, as launchers call it."""
    return make_site(config, limiter, dies, notes)


def main(path: Path, lines: int) -> None:
    """Learn in PATH at two workers; die at line number LINES of the journals."""
    append, count = Journal._append, []

    def dying(self: Journal, record: _Record) -> None:
        count.append(1)
        if len(count) > lines:
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, record)

    Journal._append = dying  # type: ignore[method-assign]
    config, dialogues = make_learning(), make_dialogues()
    with RayLauncher(WORKERS, partial(site_of, config, None, None)) as launcher:
        learn(path, config, dialogues, make_world(config), launcher)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
