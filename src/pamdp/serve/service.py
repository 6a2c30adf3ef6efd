"""What the routes of a server share: its engine, models, keys, records and counters, and who may use them.

Owns admission (keys, limits, the queue, a server that stops). Knows nothing of what a request asks for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from pamdp.engines.engine import Engine
from pamdp.models.embedded import load_backbone
from pamdp.models.policy import Policy
from pamdp.serve.aside import Write
from pamdp.serve.callers import Asker, namespaced
from pamdp.serve.check import Report
from pamdp.serve.config import ServeConfig
from pamdp.serve.errors import ApiError
from pamdp.serve.keys import Caller, Keys
from pamdp.serve.metrics import Metrics
from pamdp.serve.models import Load, Model, Models
from pamdp.serve.served import Recorder, ServedReply

log = logging.getLogger("pamdp.serve")


Check = Callable[[Policy, Policy, Write], Report]
"""From the policy in use, the one that is to follow it, and who writes their replies; runs in a thread of its own."""
Loaded = Callable[[Models], None]
"""Is told of models before they reply to anybody; runs in the engine's thread."""


@dataclass(slots=True, eq=False)
class Service:
    """One server.

    Attributes:
      models: by name; replaced whole.
      recorder: where finished replies go.
      check: what a new policy has to pass.
      loaded: is told of new models.
      load: how backbones are loaded.
      reloading: held while another policy is loaded: one after another.
      stopping: whether new requests are refused.
      active: requests under way, until the last byte is sent.
      waiting: chats that nobody has read yet.
    """

    engine: Engine
    models: Models
    config: ServeConfig
    keys: Keys
    recorder: Recorder | None = None
    check: Check | None = None
    loaded: Loaded = lambda _: None
    load: Load = load_backbone
    reloading: asyncio.Lock = field(default_factory=asyncio.Lock)
    stopping: bool = False
    active: int = 0
    waiting: int = 0
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.engine)
        self.metrics.queue.set_function(lambda: self.waiting)

    def model(self, name: str) -> Model:
        """The model NAME; an ApiError where there is none."""
        if name not in self.models:
            raise ApiError(
                404, f"no model {name[:80]!r}; there are: {', '.join(self.models)}", "model_not_found", "model"
            )
        return self.models[name]

    @contextmanager
    def admitted(self, caller: Caller) -> Iterator[None]:
        """A request under way inside the block; an ApiError where CALLER, or everybody, has to wait."""
        if self.stopping:
            raise ApiError(503, "the server is about to stop", "stopping", retry=5)
        if self.waiting >= self.config.queue:
            raise ApiError(429, "too many requests wait; ask again later", "queue_full", retry=1)
        if wait := caller.ask():
            raise ApiError(429, f"key {caller.name!r} has used up its limit", "rate_limit_exceeded", retry=wait)
        caller.running += 1
        try:
            yield
        finally:
            caller.running -= 1

    @property
    def unrecorded(self) -> int:
        """How many replies could not be written down."""
        return int(self.metrics.registry.get_sample_value("pamdp_unrecorded_replies_total") or 0)

    def record(self, reply: ServedReply) -> None:
        """Write a reply down; a reply that cannot be is given all the same, and the failure logged and counted."""
        if self.recorder is None:
            return
        try:
            self.recorder.served(reply)
        except Exception:
            self.metrics.unrecorded.inc()
            log.exception("reply %s could not be written down", reply.id)


def service(request: Request) -> Service:
    """The server that a request has reached."""
    found: Service = request.app.state.service
    return found


This = Annotated[Service, Depends(service)]
bearer = HTTPBearer(auto_error=False, description="A key of this server.")


def caller(this: This, given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Caller:
    """Whose key came with a request; an ApiError where none did that is known."""
    found = this.keys.caller("" if given is None else given.credentials)
    if found is None:
        what = "this server wants a key: Authorization: Bearer KEY" if given is None else "this key is not known here"
        raise ApiError(401, what, "invalid_api_key")
    return found


Asking = Annotated[Caller, Depends(caller)]


def who(asking: Asking) -> Asker:
    """The same for routes that know nothing of keys (callers.py)."""
    return asking.name, namespaced(asking.name, None), asking.admin


def admin(asking: Asking) -> Caller:
    """The same for what only admins may do."""
    if not asking.admin:
        raise ApiError(403, f"key {asking.name!r} is no admin's", "not_admin")
    return asking


Admin = Annotated[Caller, Depends(admin)]
