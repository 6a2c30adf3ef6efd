"""From endpoints' settings to chat models: cache, retries, account and limits around each, in this order.

Owns the wrappers and who shares what. Models by their kind are CHAT_MODELS of registry.py. Roles that are reached in
the same way share one model. Roles that name the same model of the same server share its limits, which are the loosest
that any of them names; a role whose own are tighter keeps those too.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from pamdp import ranks
from pamdp.calls_config import EndpointConfig
from pamdp.errors import ConfigError
from pamdp.llm.ask import Asking
from pamdp.llm.cache import Cached
from pamdp.llm.chat import ChatModel
from pamdp.llm.ledger import Ledger, Metered, Price, Role
from pamdp.llm.limits import Allowed, Limiter, Retrying
from pamdp.llm.openai import public_url
from pamdp.models.embedded import EMBEDDED, cache_dir
from pamdp.place_config import PlaceConfig
from pamdp.registry import CHAT_MODELS, JUDGES

HERE = ("embedded", "local")
"""Kinds that compute on this machine; they write together what waits together, so nothing is held back from them."""


def asking(end: EndpointConfig) -> Asking:
    """How an endpoint's model is asked."""
    return Asking(end.temperature, end.max_tokens, end.attempts, end.seed)


def build_chat_models(
    ends: Mapping[str, tuple[Role, EndpointConfig]],
    ledger: Ledger,
    cache: Path | None = None,
    remember: bool = True,
    limiter: Limiter | None = None,
) -> dict[str, ChatModel]:
    """A chat model for each endpoint, by the setting that describes it; nothing is called yet.

    Args:
      ends: setting -> on whose account its calls go, and its values.
      cache: folder of remembered answers; None: the user's cache folder.
      remember: whether answers are; those about people who may ask to be forgotten must not be.
      limiter: puts limits around models; None: a new one.

    Raises:
      ConfigError: settings of an endpoint do not fit together.
      ModelError: a model of this machine is missing.
    """
    servers: dict[tuple[str, ...], list[EndpointConfig]] = defaultdict(list)
    for name, (_, end) in ends.items():
        _check(name, end)
        servers[end.kind, end.base_url, end.model].append(end)
    limited = limiter or Limiter()
    made = dict[tuple[object, ...], ChatModel]()
    out = dict[str, ChatModel]()
    for name, (role, end) in ends.items():
        server = end.kind, end.base_url, end.model
        reached = (*server, end.key_env, end.timeout, *(getattr(end, name) for name in PlaceConfig.model_fields))
        if reached not in made:
            made[reached] = CHAT_MODELS[end.kind](end)
        model = made[reached]
        if end.kind not in HERE:
            model = limited(model, _loosest([end], name, *server), _loosest(servers[server], *server))
        metered = Metered(model, ledger, role, Price(end.price_prompt, end.price_completion))
        patient = Retrying(metered, end.tries)
        out[name] = Cached(patient, cache or cache_dir() / "answers") if remember else patient
    return out


def _loosest(ends: Sequence[EndpointConfig], *name: str) -> Allowed:
    """The limits that some roles keep together; where one names none, there is none. Processes share them evenly."""
    n = ranks.world_size()
    return Allowed(
        name,
        max(1, max(end.concurrency for end in ends) // n),
        max(end.requests_per_minute or math.inf for end in ends) / n,
        max(end.tokens_per_minute or math.inf for end in ends) / n,
    )


def _check(name: str, end: EndpointConfig) -> None:
    if end.kind in ("openai", "local") and end.model in JUDGES and (end.kind, end.model) != ("local", EMBEDDED):
        where = "a server" if end.kind == "openai" else "a language model of this machine"
        raise ConfigError(f"{name}: {where} needs the model's name: {name}.model=NAME")
    if end.kind == "openai" and not end.base_url:
        raise ConfigError(f"{name}: a server needs its address: {name}.base_url=http://HOST/v1")
    require_public(name, end.base_url)


def require_public(name: str, *urls: str) -> None:
    """A ConfigError where an address of the endpoint NAME holds more than an address, such as a key."""
    if any(public_url(url) != url for url in urls):
        # Settings are written into the run, and this one is not repeated here either.
        raise ConfigError(
            f"{name}.base_url holds more than an address; put the key into an environment variable and name it in "
            f"{name}.key_env"
        )
