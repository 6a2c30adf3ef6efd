"""Tiny policies to serve, and servers that run meanwhile."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import APIRouter
from openai import OpenAI

from pamdp.config import Config
from pamdp.engines.engine import Engine
from pamdp.models.backbone import Backbone
from pamdp.models.embedded import load_backbone
from pamdp.models.policy import Policy
from pamdp.serve.app import create_app
from pamdp.serve.config import ServeConfig
from pamdp.serve.keys import Keys
from pamdp.serve.models import Model, Models
from pamdp.serve.profiles import Profiles
from pamdp.serve.served import ServedReply
from pamdp.serve.server import Server
from pamdp.serve.service import Check, Service
from pamdp.settings import load
from pamdp.train.factory import new_policy, policy_weights, save_policy, set_weights
from pamdp.types import History, Message
from tests.tools.tiny import make_tiny_backbone

SETTINGS = ("model.d_a=4", "model.depth=0.5", "rl.max_reply=16", "clone.lora_rank=2")


def lively_policy(backbone: Backbone, seed: int = 0, lora: bool = True, name: str = "tiny") -> Policy:
    """A random policy whose actions and adapter change what is said."""
    how = f"seed={seed}", f"clone.backbone={'lora' if lora else 'frozen'}", f"model.name={name}"
    policy = new_policy(backbone, load(Config, (), [*SETTINGS, *how]))
    generator = torch.Generator().manual_seed(seed)
    weights = policy_weights(policy)
    for key, tensor in weights.get("adapter", {}).items():
        weights["adapter"][key] = torch.randn(tensor.shape, generator=generator) * 0.3
    weights["planner"]["steering"] = torch.randn(weights["planner"]["steering"].shape, generator=generator)
    weights["planner"]["actor.sigma"] = torch.tensor(0.5)
    set_weights(policy, weights)
    return policy


def make_policies() -> dict[str, Policy]:
    """Two with one adapter, one with another, and the plain model, on one backbone."""
    backbone = make_tiny_backbone()
    trained, other = lively_policy(backbone), lively_policy(backbone, 1)
    clone = trained.with_actor(lively_policy(backbone, 2, lora=False).trained_planner.actor)
    plain = Policy(backbone, readout=trained.readout, config=trained.config)
    return {"pamdp": trained, "clone": clone, "other": replace(other, system="Be kind."), "vanilla": plain}


def make_models() -> Models:
    """The same as models of a server."""
    return {name: Model(name, policy, f"version of {name}") for name, policy in make_policies().items()}


def save_run(folder: Path, seed: int = 0) -> Path:
    """A run with a clone and what was trained from it, and their backbone beside it."""
    if not (model := folder.parent / "model").is_dir():
        tiny = make_tiny_backbone()
        tiny.model.save_pretrained(model)
        tiny.tokenizer.save_pretrained(model)
    cloned = lively_policy(load_backbone(str(model)), seed, name=str(model))
    trained = cloned.with_actor(lively_policy(cloned.backbone, seed + 1, lora=False).trained_planner.actor)
    save_policy(cloned, folder / "policy")
    save_policy(trained, folder / "trained")
    return folder


def said(*texts: str) -> History:
    """What user and assistant said in turn."""
    return tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts))


def as_json(history: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as a client sends them."""
    return [{"role": message.role, "content": message.content} for message in history]


@dataclass
class Running:
    """A server, and what it wrote down."""

    url: str
    this: Service
    server: Server
    records: list[ServedReply] = field(default_factory=list)

    def client(self, key: str = "none") -> OpenAI:
        """OpenAI's own client, which asks once."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=300)

    def alone(self, model: str, history: Sequence[Message], max_tokens: int = 16) -> str:
        """What the policy replies by itself; in the engine's thread, which owns the models."""
        policy = self.this.models[model].policy
        return self.this.engine.call(partial(policy.reply, tuple(history), max_tokens=max_tokens)).result()

    def rests(self) -> None:
        """Wait until nothing is under way."""
        while self.this.active or self.this.engine.running:
            time.sleep(0.01)

    def served(self, reply: ServedReply) -> None:
        self.records.append(reply)


@contextmanager
def serving(
    models: Models,
    keys: Keys = Keys(),
    *settings: str,
    check: Check | None = None,
    routers: Sequence[APIRouter] = (),
    profiles: Profiles | None = None,
    **more: Any,
) -> Iterator[Running]:
    """A real server on a port of its own, in this process; what it serves goes to PROFILES, or else to `records`."""
    config = load(ServeConfig, (), settings)
    engine = Engine(config.places, config.context, config.max_tokens, config.cache_mb * 2**20)
    records: list[ServedReply] = []
    running = Running("", None, None, records)  # type: ignore[arg-type]  # filled in below
    app = create_app(engine, models, config, keys, profiles=profiles, check=check, **more)
    running.this = app.state.service
    running.this.recorder = profiles or running
    for router in routers:
        app.include_router(router)
    options = uvicorn.Config(app, log_config=None, log_level=logging.WARNING, access_log=False)
    running.server = Server(options, running.this)
    listening = socket.create_server(("127.0.0.1", 0))
    running.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    thread = threading.Thread(target=running.server.run, args=([listening],), daemon=True)
    thread.start()
    while not running.server.started:
        time.sleep(0.01)
    try:
        yield running
    finally:
        running.server.should_exit = running.server.force_exit = True
        thread.join()
        engine.stop()
        listening.close()
