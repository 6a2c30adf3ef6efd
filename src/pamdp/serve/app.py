"""The application: its routes, and what holds for every request.

Owns the limit of a request's size, and the one line that is logged of each: no header, no query and no text is in it.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pamdp.engines.engine import Engine
from pamdp.models.embedded import load_backbone
from pamdp.serve import admin, completions, errors, memory
from pamdp.serve.config import ServeConfig
from pamdp.serve.keys import Keys
from pamdp.serve.models import Load, Models
from pamdp.serve.profiles import Profiles
from pamdp.serve.service import Check, Service, log

DRAINED = 64 * 2**20
"""Bytes of a request that is too large which are read and dropped, so that its client can read why."""


def create_app(
    engine: Engine,
    models: Models,
    config: ServeConfig = ServeConfig(),
    keys: Keys = Keys(),
    *,
    profiles: Profiles | None = None,
    check: Check | None = None,
    load: Load = load_backbone,
) -> FastAPI:
    """The application of a server; `app.state.service` is what its routes share.

    Further routes are included as in any application; `pamdp.serve.service` has their dependencies.

    Args:
      engine, models: who writes, and what can be asked for; see `load_models`.
      keys: who may ask; without any everybody who reaches the server, which then must be this machine.
      profiles: what remembers users (`memory.open_profiles`), and their routes with it; None: nothing is kept.
      check: what a policy that is loaded later has to pass.
      load: how a backbone is loaded.
    """
    lifespan = None if profiles is None else partial(memory.sweeping, profiles)
    app = FastAPI(title="pamdp", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = this = Service(engine, models, config, keys, profiles, check, load=load)
    errors.install(app)
    for router in (completions.router, admin.router, *(memory.install(this, profiles) if profiles else ())):
        app.include_router(router)
    if keys.open:
        # A page in this machine's browser must not reach a server without keys under a name of its own.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "::1", "[::1]"])
    app.add_middleware(Watch, this=this)
    return app


class Watch:
    """Limits, logs and counts every request."""

    def __init__(self, app: ASGIApp, this: Service) -> None:
        self.app, self.this = app, this

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or hand on what is none."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, size, sent, start = 500, 0, False, time.monotonic()
        limit = self.this.config.body_kb * 1024
        length = dict(scope["headers"]).get(b"content-length", b"0")

        async def limited() -> Message:
            nonlocal size, sent
            try:
                message = await asyncio.wait_for(receive(), None if sent else self.this.config.timeout)
            except TimeoutError as error:
                raise errors.ApiError(408, "the request did not come to its end", "timeout") from error
            sent = not message.get("more_body")
            size += len(message.get("body", b""))
            if size > limit:
                raise _too_large(limit)
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.this.active += 1
        try:
            if length.isdigit() and int(length) > limit:
                await _drain(receive)
                error = _too_large(limit)
                answer = JSONResponse(errors.body(413, str(error.detail), error.code), 413)
                await answer(scope, receive, noted)
            else:
                await self.app(scope, limited, noted)
        finally:
            self.this.active -= 1
            route = getattr(scope.get("route"), "path", "other")
            self.this.metrics.requests.labels(route, status).inc()
            log.info("%s %s %s %.0f ms", scope["method"], route, status, 1000 * (time.monotonic() - start))


def _too_large(limit: int) -> errors.ApiError:
    return errors.ApiError(413, f"a request has at most {limit:,} bytes here", "request_too_large")


async def _drain(receive: Receive) -> None:
    left = DRAINED
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return
