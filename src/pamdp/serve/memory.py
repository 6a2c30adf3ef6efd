"""What makes a server remember: a store behind its replies, and the routes by which users see, rate and erase it.

Owns where a store is unless settings say, how store, models and engine are put together, and when old replies are
looked for. Knows nothing of tables.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import APIRouter

from pamdp.engines.batch import instructed
from pamdp.env.profile import Profiler
from pamdp.errors import StoreError
from pamdp.llm.ledger import Ledger
from pamdp.llm.stack import asking, build_chat_models
from pamdp.serve.config import ServeConfig
from pamdp.serve.erasing import know_version
from pamdp.serve.feedback import feedback_router
from pamdp.serve.models import TRAINED, Models, run_of
from pamdp.serve.profiles import Profiles
from pamdp.serve.service import Service, log, who
from pamdp.serve.store import Store
from pamdp.serve.users import users_router
from pamdp.serve.value import Value, value_of
from pamdp.train.action_space import action_space
from pamdp.types import History, Persona

FILE = "store.db"
SWEEP_EVERY = 3600.0
"""Seconds between looks for replies that are too old."""


def open_profiles(config: ServeConfig, source: str, key: str | None) -> Profiles | None:
    """The store that CONFIG names for a server of the run SOURCE, and who infers profiles; None where none is wanted.

    Raises:
      StoreError: the store cannot be opened, or not with this KEY.
      ConfigError: the key is none, or settings of the profiler do not fit together.
    """
    if not config.store:
        return None
    profiler, end = None, config.profiler
    if end.model:
        model = build_chat_models({"profiler": ("profiler", end)}, Ledger(), remember=False)["profiler"]
        profiler = Profiler(model, asking(end))
    where = str(store_of(source)) if config.store == "auto" else config.store
    if "://" not in where and not Path(where).exists() and Path(where).parent.is_dir():
        Path(where).touch(mode=0o600)  # it holds what users say
    return Profiles(Store(where, key, config.retention), profiler, config.profile_every)


def store_of(source: str) -> Path:
    """The file beside the run SOURCE, which is the store of what comes after that run as well.

    For the policy that is shipped, and where nothing can be written, it is in the user's data folder.
    """
    beside = Path(run_of(source)).parent
    if source != "shipped" and os.access(beside, os.W_OK):
        return beside / FILE
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "pamdp"
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    return data / FILE


@asynccontextmanager
async def sweeping(profiles: Profiles, _: object) -> AsyncIterator[None]:
    """Inside the block what is too old is erased, now and every hour, whether anybody talks or not."""

    async def sweep() -> None:
        while True:
            try:
                await asyncio.to_thread(profiles.store.sweep)
            except StoreError as error:
                log.warning("old replies were not erased: %s", error)
            except Exception:  # retention is a promise: the next hour tries again
                log.exception("old replies were not erased")
            await asyncio.sleep(SWEEP_EVERY)

    task = asyncio.create_task(sweep())
    try:
        yield
    finally:
        task.cancel()


def install(this: Service, profiles: Profiles) -> Sequence[APIRouter]:
    """Have a server note the policies that reply in the store of PROFILES; returns the routes of users and feedback."""
    store = profiles.store

    def know(models: Models) -> None:
        for model in models.values():
            if model.policy.planner is not None:
                know_version(store, model.version, model.run, action_space(model.policy), model.policy.users)

    def value(history: History, profile: Persona) -> Value | None:
        model = this.models[TRAINED]
        if model.critics is None:
            return None
        policy, spoken = instructed(model.policy, history)
        return this.engine.call(partial(value_of, policy, model.critics, policy.fitted(spoken), profile)).result()

    know(this.models)
    this.loaded = know
    log.info("replies, feedback and profiles are kept in %s", store.place)
    return users_router(profiles, who, value, this.engine.forget), feedback_router(store, who)
