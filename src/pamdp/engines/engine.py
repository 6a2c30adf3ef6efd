"""Replies of several policies, asked for at any time and written together, in one thread that owns the models.

Owns whose turn it is: policies with one adapter share a batch (models/generate.py), batches take turns, token by token.
Knows nothing of users' names, of HTTP, and of what a reply is for.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from traceback import clear_frames
from typing import TypeVar

import torch

from pamdp.engines.batch import Batch, Limits, unexpected
from pamdp.engines.job import Job
from pamdp.engines.prefix_cache import PrefixCache
from pamdp.errors import EndpointError

T = TypeVar("T")


class Engine:
    """Writes jobs until it is stopped.

    Args:
      places: most replies of one adapter that are written at once.
      context: most tokens of a history and its reply; what a backbone can see limits it too.
      tokens: most tokens of a reply.
      cache_bytes: size of the prefixes that are kept for next turns.
    """

    def __init__(
        self, places: int = 32, context: int = 4096, tokens: int = 512, cache_bytes: int = 512 * 2**20
    ) -> None:
        self.limits = Limits(places, context, tokens)
        self.cache = PrefixCache(cache_bytes)
        self.running = 0  # replies that have a place
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._batches: dict[tuple[int, str | None, int], Batch] = {}
        self._thread = threading.Thread(target=self._work, name="pamdp-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still writes."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Have a job written; what comes of it is told to `job.emit`."""
        self._inbox.put(partial(self._add, job, time.monotonic()))

    def cancel(self, job: Job) -> None:
        """Write no more of a job, whose places are free then; nothing happens where it is over."""
        self._inbox.put(partial(self._cancel, job))

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run FUNCTION, which may use the models, in the engine's thread between two tokens."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():  # whoever asked has gone
                return
            try:
                future.set_result(function())
            except Exception as error:
                clear_frames(error.__traceback__)  # what they hold is let go of here, and in no other thread
                future.set_exception(error)

        self._inbox.put(run)
        return future

    def forget(self, user: str) -> None:
        """Drop what is kept of a user's conversations."""
        self._inbox.put(partial(self.cache.forget, user))

    def stop(self) -> None:
        """End; jobs that are not over fail."""
        self._inbox.put(None)
        self._thread.join()

    @torch.no_grad()
    def _work(self) -> None:
        while True:
            while not self._batches or not self._inbox.empty():
                if (command := self._inbox.get()) is None:
                    for batch in self._batches.values():
                        batch.fail(EndpointError("the server stops"))
                    return
                command()
            for key, batch in list(self._batches.items()):
                try:
                    batch.turn()
                except Exception as error:  # other batches go on
                    batch.fail(unexpected(error))
                if not batch.busy:
                    batch.rest()
                    del self._batches[key]
            self.running = sum(len(batch.replies) for batch in self._batches.values())

    def _add(self, job: Job, asked: float) -> None:
        policy = job.policy
        policy.backbone.defer = self._inbox.put
        name = None if policy.adapter is None else policy.adapter.name
        key = id(policy.backbone), name, policy.readout.layer
        if key not in self._batches:
            self._batches[key] = Batch(self.limits, self.cache, policy.backbone, name, policy.readout.layer)
        self._batches[key].queue.append((job, asked))

    def _cancel(self, job: Job) -> None:
        for batch in self._batches.values():
            batch.cancel(job)
