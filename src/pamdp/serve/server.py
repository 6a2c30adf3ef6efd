"""The process that serves: from its options to its end.

Owns the port, signals and the log. Told to stop, it refuses what is new, ends what it has begun, and exits with 0.
"""

from __future__ import annotations

import logging
import socket
import time
from functools import partial
from ipaddress import ip_address
from types import FrameType

import uvicorn

from pamdp.engines.engine import Engine
from pamdp.errors import ConfigError
from pamdp.models.embedded import load_backbone
from pamdp.serve.app import create_app
from pamdp.serve.check import check
from pamdp.serve.config import ServeConfig
from pamdp.serve.keys import Keys
from pamdp.serve.memory import open_profiles
from pamdp.serve.models import Load, load_models
from pamdp.serve.pages import page_router
from pamdp.serve.service import Service


class Server(uvicorn.Server):
    """Uvicorn's server, but one that lets replies end and refuses new ones while they do."""

    def __init__(self, config: uvicorn.Config, this: Service, ui: bool = False) -> None:
        super().__init__(config)
        self.this, self.ui = this, ui
        self.deadline = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        for host, port in {s.getsockname()[:2] for server in self.servers for s in server.sockets}:
            name = f"[{host}]" if ":" in host else host
            print(f"serving {', '.join(self.this.models)} on http://{name}:{port}/v1", flush=True)
            if self.ui:
                print(f"the page is at http://{name}:{port}/", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop once all replies have ended; at once when told for a second time."""
        if self.this.stopping:
            self.should_exit = self.force_exit = True
        self.this.stopping = True
        self.deadline = time.monotonic() + self.this.config.grace

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to exit; asked ten times a second."""
        if self.this.stopping and (self.this.active == 0 or time.monotonic() > self.deadline):
            self.should_exit = True
        return await super().on_tick(counter)


def serve(
    source: str,
    config: ServeConfig,
    keys: Keys,
    host: str = "127.0.0.1",
    port: int = 8300,
    *,
    store_key: str | None = None,
    load: Load = load_backbone,
    ui: bool = False,
) -> None:
    """Serve the models of the run SOURCE until a signal ends it, with a web page if UI.

    What is served is kept where CONFIG says.

    Raises:
      ConfigError: others could reach a server without keys, or the port is taken.
      StoreError: the store cannot be opened, or not with STORE_KEY.
    """
    require_loopback(host, keys)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}; choose another --port") from error
    engine = Engine(config.places, config.context, config.max_tokens, config.cache_mb * 2**20)
    profiles = None
    try:
        # In the engine's thread: a second one that computes has OpenMP put both to sleep between operations.
        models = engine.call(partial(load_models, source, load, config.model)).result()
        profiles = open_profiles(config, source, store_key)
        app = create_app(engine, models, config, keys, profiles=profiles, check=check, load=load)
        if ui:
            app.include_router(page_router(source))
        options = uvicorn.Config(app, log_config=None, log_level=logging.WARNING, access_log=False)
        options.timeout_graceful_shutdown = 5  # what has not ended by then was given its time
        Server(options, app.state.service, ui).run([listening])
    finally:
        engine.stop()
        listening.close()
        if profiles is not None:
            profiles.close()


def require_loopback(host: str, keys: Keys) -> None:
    """A ConfigError where other machines could reach a server without keys."""
    try:
        inside = ip_address(host).is_loopback
    except ValueError:
        inside = host == "localhost"
    if keys.open and not inside:
        raise ConfigError(
            f"without keys a server is for this machine alone, and {host} is not: give --keys FILE "
            "(`pamdp serve-key NAME` makes one), or leave --host out"
        )
