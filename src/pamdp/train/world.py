"""From settings to the world that an assistant learns in: simulated users, profiler, judge and reference writer.

Owns which wrappers go around a model, and in which order: cache, retries, account, limits, model. Knows nothing of
loops. Roles that name the same model of the same server share its limits, and a model on this machine is loaded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pamdp.config import Config, EndpointConfig, OnlineConfig
from pamdp.env.profile import Profiler
from pamdp.env.references import WrittenReferences
from pamdp.env.simulated import SimulatedUser
from pamdp.errors import ConfigError
from pamdp.judges.base import Judge
from pamdp.judges.embedded import NAMES, load_judge
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.llm.cache import Cached
from pamdp.llm.chat import ChatModel
from pamdp.llm.ledger import Ledger, Metered, Price, Role
from pamdp.llm.limits import Limited, Retrying
from pamdp.llm.local import LocalChat
from pamdp.llm.openai import OpenAIChat, public_url
from pamdp.models.backbone import Backbone
from pamdp.models.embedded import EMBEDDED, cache_dir, load_backbone
from pamdp.seeds import seed_of
from pamdp.types import Dialogue

OPERATION = ("key_env", "timeout", "tries", "concurrency", "requests_per_minute", "tokens_per_minute")
"""Settings of an endpoint that a resumed run may change: they decide when an answer comes, not which."""
ROLES = ("simulator", "profiler", "judge", "writer")


def may_change() -> tuple[str, ...]:
    """Dotted names of the settings that may differ when a run is resumed."""
    return tuple(f"online.{role}.{name}" for role in ROLES for name in OPERATION)


@dataclass(slots=True)
class World:
    """Who an assistant talks with, and who rewards it.

    Attributes:
      config: settings of the users.
      simulator: plays the users.
      judge: decides rewards.
      profiler: infers ω_t; None: ω_t is the persona.
      writer: writes u_g; None: a policy does.
      ledger: what all of them cost.
    """

    config: Config
    simulator: ChatModel
    judge: Judge
    profiler: Profiler | None = None
    writer: WrittenReferences | None = None
    ledger: Ledger = field(default_factory=Ledger)

    def user(self, dialogue: Dialogue, seed: int) -> SimulatedUser:
        """The user of a record, to be played; SEED makes another dialogue of the same user."""
        online = self.config.online
        end = online.simulator
        return SimulatedUser(
            dialogue.id, dialogue.persona, self.simulator,
            opening=dialogue.turns[0].user if online.opening == "recorded" else None,
            profiler=self.profiler, difficulty=online.difficulty, attempts=end.attempts,
            temperature=end.temperature, max_tokens=end.max_tokens, seed=seed_of(end.seed, seed),
        )  # fmt: skip

    def fingerprints(self, dialogues: Sequence[Dialogue]) -> tuple[dict[str, str], ...]:
        """What identifies everybody in this world, for a run's fingerprint."""
        parts = [self.user(dialogues[0], 0).fingerprint, {"role": "reward", **self.judge.fingerprint}]
        parts += [part.fingerprint for part in (self.profiler, self.writer) if part is not None]
        return tuple(parts)


def build_world(config: Config, backbone: Backbone, load: Callable[[str], Backbone] = load_backbone) -> World:
    """The world that the settings describe; nothing is called yet.

    Args:
      backbone: the policy's, for an embedded judge.
      load: brings a model of this machine by name.

    Raises:
      ConfigError: settings of an endpoint do not fit together.
      ModelError: a model of this machine is missing.
    """
    online, made = config.online, _Maker(config, load)
    profiler = writer = None
    if config.rl.profile == "inferred":
        p = online.profiler
        profiler = Profiler(made.model(p, "profiler"), p.attempts, p.temperature, p.max_tokens, seed=p.seed)
    if online.reference == "written":
        w = online.writer
        writer = WrittenReferences(made.model(w, "reference"), w.attempts, w.temperature, w.max_tokens, w.seed)
    simulator = made.model(online.simulator, "simulator")
    return World(config, simulator, _judge(online, made, backbone), profiler, writer, made.ledger)


def _judge(online: OnlineConfig, made: _Maker, backbone: Backbone) -> Judge:
    end = online.judge
    if end.kind == "embedded":
        return load_judge(end.model, backbone)
    model = made.model(end, "judge")
    return PairwiseJudge(
        end.model, model, online.both_orders, end.attempts, end.temperature, end.max_tokens, end.seed
    )  # fmt: skip


class _Maker:
    def __init__(self, config: Config, load: Callable[[str], Backbone]) -> None:
        self.load, self.ledger = load, Ledger()
        self.cache = Path(config.online.cache) if config.online.cache else cache_dir() / "answers"
        self._known: dict[tuple[str, str], ChatModel] = {}

    def model(self, end: EndpointConfig, role: Role) -> ChatModel:
        price = Price(end.price_prompt, end.price_completion)
        metered = Metered(self._limited(end, role), self.ledger, role, price)
        return Cached(Retrying(metered, end.tries, seed=end.seed), self.cache)

    def _limited(self, end: EndpointConfig, role: Role) -> ChatModel:
        name = EMBEDDED if end.kind == "embedded" else end.model
        where = (end.base_url if end.kind == "openai" else "", name)
        if where not in self._known:
            if end.kind == "openai":
                _check(end, f"online.{'writer' if role == 'reference' else role}")
                model: ChatModel = OpenAIChat(name, end.base_url, end.key_env, end.timeout)
                model = Limited(model, end.concurrency, end.requests_per_minute, end.tokens_per_minute)
            else:
                # It writes what waits together: the more calls are let in, the fuller its batches.
                model = Limited(LocalChat(self.load(name)), 64)
            self._known[where] = model
        return self._known[where]


def _check(end: EndpointConfig, name: str) -> None:
    if end.model == EMBEDDED or end.model in NAMES:
        raise ConfigError(f"{name}: a server needs the model's name: {name}.model=NAME")
    if public_url(end.base_url) != end.base_url:
        # Settings are written into the run, and this one is not repeated here either.
        raise ConfigError(
            f"{name}.base_url holds more than an address; put the key into an environment variable and name it in "
            f"{name}.key_env"
        )
