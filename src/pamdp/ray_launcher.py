"""The launcher of a Ray cluster: an actor for each worker, which builds its site once and does one item at a time.

Owns starting workers, giving the items of dead ones to new ones, and limits that all workers keep together. Knows
nothing of what is done (launch.py). What happens at a worker is fetched in batches as it happens, so that it is stored
by the driver while the item goes on; calls that were counted there come along, before what they were for.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import traceback
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import torch

from pamdp.errors import ConfigError, PamdpError, RunError
from pamdp.launch import Tell, unheard
from pamdp.launcher_config import LauncherConfig
from pamdp.llm.cluster import ClusterLimiter, Gatekeeper
from pamdp.llm.ledger import Entry, Ledger
from pamdp.llm.limits import Limiter
from pamdp.progress import note

DEATHS = 3
"""Workers that an item may take with it before it is given up."""


class Counts(Protocol):
    """What a site has: the account of its calls."""

    @property
    def ledger(self) -> Ledger:
        """Emptied whenever something is told."""


S = TypeVar("S", bound=Counts)
X = TypeVar("X")
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Told:
    event: object


@dataclass(frozen=True, slots=True)
class _Spent:
    entries: dict[str, Entry]


@dataclass(frozen=True, slots=True)
class _Done:
    result: Any  # of whatever type the function gives
    error: PamdpError | None = None


class Worker(Generic[S]):
    """An actor: `begin` an item, then `heard` until it is done. MAKE builds the site when the first item comes."""

    def __init__(self, make: Callable[[Limiter], S], limiter: Limiter) -> None:
        torch.set_num_threads(1)
        self.make, self.limiter = make, limiter
        self.site: S | None = None
        self.events: queue.SimpleQueue[_Told | _Spent | _Done] = queue.SimpleQueue()

    def begin(self, function: Callable[[S, X, I, Tell], R], shared: X, item: I) -> None:
        """Set an item going."""
        threading.Thread(target=self._do, args=(function, shared, item), daemon=True).start()

    def heard(self, begun: None = None) -> list[_Told | _Spent | _Done]:
        """What has happened since the last time, or since an item was BEGUN; waits until something has."""
        found = [self.events.get()]
        while not self.events.empty():
            found.append(self.events.get())
        return found

    def _do(self, function: Callable[[S, X, I, Tell], R], shared: X, item: I) -> None:
        torch.set_num_threads(1)  # threads count apart
        try:
            if self.site is None:
                self.site = self.make(self.limiter)
            site = self.site

            def tell(event: object) -> None:
                self._spent()
                self.events.put(_Told(event))

            end = _Done(function(site, shared, item, tell))
        except PamdpError as error:
            end = _Done(None, error)
        except BaseException:
            end = _Done(None, RunError(f"a worker failed:\n{traceback.format_exc()}"))
        self._spent()
        self.events.put(end)

    def _spent(self) -> None:
        if self.site is not None and (spent := self.site.ledger.take()):
            self.events.put(_Spent(spent))


class RayLauncher(Generic[S]):
    """Does items at the workers of a Ray cluster: `with RayLauncher(config, make, ledger) as launcher: ...`.

    Args:
      make: gives a worker its site; sent to it, so it is a function of a module with plain arguments. It is given what
        puts limits around chat models.
      ledger: joins what calls of all workers cost.

    Raises:
      ConfigError: Ray is not installed or cannot be reached, or the cluster has not so many CPUs or GPUs.
    """

    def __init__(self, config: LauncherConfig, make: Callable[[Limiter], S], ledger: Ledger | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise ConfigError('launcher.kind=ray needs Ray: pip install "pamdp[ray]"') from error
        self.ray, self.config, self.make = ray, config, make
        self.ledger = Ledger() if ledger is None else ledger
        self.workers, self.own = config.workers, not ray.is_initialized()
        if self.own:
            self._connect()
        there = ray.cluster_resources()
        for what, wanted in (("CPU", config.workers), ("GPU", config.workers * config.gpus_per_worker)):
            if there.get(what, 0) < wanted:
                self.close()
                raise ConfigError(
                    f"launcher.workers={config.workers} need {wanted:g} {what}s, and the cluster has "
                    f"{there.get(what, 0):g}; set fewer workers, or launcher.gpus_per_worker to a part of one"
                )
        if there.get("GPU") and not config.gpus_per_worker:
            note("workers compute on CPUs; the cluster has GPUs, of which launcher.gpus_per_worker gives them some")
        self._gatekeeper: Any = None
        self._actors: list[Any] = [None] * config.workers
        self._names: list[str] = [""] * config.workers
        self._number = count()
        self._said: Counter[int] = Counter()
        self._seconds: defaultdict[int, float] = defaultdict(float)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        if self._gatekeeper is not None:
            self.ray.kill(self._gatekeeper)
        self.close()

    def close(self) -> None:
        """Leave the cluster, if it was joined here."""
        if self.own and self.ray.is_initialized():
            self.ray.shutdown()

    def rates(self) -> str:
        """What each worker does in a second."""
        return "  ".join(f"{w + 1}: {self._said[w] / s:.1f}/s" for w, s in sorted(self._seconds.items()) if s)

    def map(
        self, function: Callable[[S, X, I, Tell], R], shared: X, items: Sequence[Callable[[], I]], heard: Tell = unheard
    ) -> list[R]:
        """FUNCTION of every item, in order; see Launcher. SHARED goes once into the cluster's object store."""
        try:
            return self._map(function, self.ray.put(shared), items, heard)
        except BaseException:
            self._end()  # what they are at is nobody's any more
            raise

    def _map(
        self, function: Callable[[S, X, I, Tell], R], shared: Any, items: Sequence[Callable[[], I]], heard: Tell
    ) -> list[R]:
        waiting, found, deaths = deque(range(len(items))), dict[int, R](), Counter[int]()
        busy = dict[Any, tuple[int, int, float]]()
        failed: PamdpError | None = None

        def give(w: int) -> None:
            if waiting and failed is None:
                actor, i = self._actor(w), waiting.popleft()
                # What begins fails where it cannot be read there; nothing would be heard of it then.
                busy[actor.heard.remote(actor.begin.remote(function, shared, items[i]()))] = w, i, time.monotonic()

        for w in range(self.workers):
            give(w)
        while busy:
            (ready,), _ = self.ray.wait(list(busy), num_returns=1)
            w, i, since = busy.pop(ready)
            try:
                events = self.ray.get(ready)
            except self.ray.exceptions.RayTaskError as error:
                raise RunError(f"a worker cannot begin: {error.cause}") from error
            except self.ray.exceptions.RayError as error:
                deaths[i] += 1
                self._bury(w)
                waiting.appendleft(i)
                if deaths[i] >= DEATHS:
                    failed = failed or RunError(f"{DEATHS} workers died at the same work, last: {error}")
                else:
                    note(f"worker {w + 1} died; another one does again what it was at")
                give(w)
                continue
            self._seconds[w] += time.monotonic() - since
            end = events.pop() if isinstance(events[-1], _Done) else None
            for event in events:
                if isinstance(event, _Spent):
                    self.ledger.join(event.entries)
                elif isinstance(event, _Told):
                    self._said[w] += event.event if isinstance(event.event, int) else 0
                    heard(event.event)
            if end is None:
                busy[self._actors[w].heard.remote()] = w, i, time.monotonic()
            elif end.error is not None:
                failed = failed or end.error
            else:
                found[i] = end.result
                give(w)
        if failed is not None:
            raise failed
        return [found[i] for i in range(len(items))]

    def _connect(self) -> None:
        address = self.config.address
        # Without an address Ray would look for one in the environment and in files; one that starts here is meant.
        here = {} if address else {"num_cpus": max(self.config.workers, os.cpu_count() or 1)}
        try:
            context = self.ray.init(address=address or "local", **here)
        except (ConnectionError, RuntimeError, ValueError) as error:
            # To a client without the token that it asks for, a cluster says nothing until time is out.
            token = address.startswith("ray://") and "RAY_AUTH_MODE" not in os.environ
            fix = "; where the cluster asks for a token: set RAY_AUTH_MODE=token" if token else ""
            raise ConfigError(f"launcher.address={address or 'local'}: Ray cannot be reached: {error}{fix}") from error
        if url := getattr(context, "dashboard_url", None):
            note(f"Ray's dashboard: http://{url}")

    def _door(self) -> Any:
        if self._gatekeeper is None:
            self._gatekeeper = self.ray.remote(num_cpus=0, max_concurrency=10_000)(Gatekeeper).remote()
        return self._gatekeeper

    def _actor(self, w: int) -> Any:
        if self._actors[w] is None:
            self._names[w] = f"{w}.{next(self._number)}"
            kind = self.ray.remote(num_cpus=1, num_gpus=self.config.gpus_per_worker)(Worker)
            self._actors[w] = kind.remote(self.make, ClusterLimiter(self._door(), self._names[w]))
        return self._actors[w]

    def _bury(self, w: int) -> None:
        self.ray.kill(self._actors[w])  # where it only cannot be reached, it must not go on beside the next one
        self._door().release.remote(self._names[w])
        self._actors[w] = None

    def _end(self) -> None:
        for w, actor in enumerate(self._actors):
            if actor is not None:
                self._bury(w)
