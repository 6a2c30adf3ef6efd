"""From settings to the world that an assistant learns in: simulated users, profiler, judge and reference writer.

Owns which wrappers go around a model, and in which order: cache, retries, account, limits, model. Knows nothing of
loops. A model on this machine is loaded once. Roles that name the same model of the same server share its limits, which
are the loosest that any of them names; a role whose own are tighter keeps those too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pamdp.config import Config, EndpointConfig, JudgeConfig
from pamdp.env.profile import Profiler
from pamdp.env.references import WrittenReferences
from pamdp.env.simulated import SimulatedUser
from pamdp.errors import ConfigError
from pamdp.judges.base import Judge, in_role
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

OPERATION = ("base_url", "key_env", "timeout", "tries", "concurrency", "requests_per_minute", "tokens_per_minute")
"""Settings of an endpoint that a resumed run may change: they decide where from and when an answer comes, not which."""
ROLES = ("simulator", "profiler", "judge", "writer")


def may_change(more: Sequence[str] = ()) -> tuple[str, ...]:
    """Dotted names of the settings that may differ when a run is resumed; MORE endpoints beside those of `online`."""
    ends = (*(f"online.{role}" for role in ROLES), *more)
    return tuple(f"{end}.{name}" for end in ends for name in OPERATION)


@dataclass(slots=True)
class EnvFactory:
    """Who an assistant talks with, and who rewards it.

    Attributes:
      config: settings of the users.
      simulator: plays the users.
      judge: decides rewards.
      profiler: infers ω_t; None: ω_t is the persona.
      writer: writes u_g; None: a policy does.
      ledger: what all of them cost.
      second: grades beside `judge`, where somebody asked for a second opinion; it never rewards.
    """

    config: Config
    simulator: ChatModel
    judge: Judge
    profiler: Profiler | None = None
    writer: WrittenReferences | None = None
    ledger: Ledger = field(default_factory=Ledger)
    second: Judge | None = None

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
        parts = [self.user(dialogues[0], 0).fingerprint, in_role(self.judge, "reward")]
        parts += [part.fingerprint for part in (self.profiler, self.writer) if part is not None]
        return tuple(parts)


def make_env_factory(
    config: Config,
    backbone: Backbone,
    load: Callable[[str], Backbone] = load_backbone,
    second: JudgeConfig | None = None,
) -> EnvFactory:
    """The world that the settings describe; nothing is called yet.

    Args:
      backbone: the policy's, for an embedded judge.
      load: brings a model of this machine by name.
      second: who gives a second opinion.

    Raises:
      ConfigError: settings of an endpoint do not fit together.
      ModelError: a model of this machine is missing.
    """
    online = config.online
    ends: dict[str, tuple[Role, EndpointConfig]] = {"online.simulator": ("simulator", online.simulator)}
    if config.rl.profile == "inferred":
        ends["online.profiler"] = ("profiler", online.profiler)
    if online.reference == "written":
        ends["online.writer"] = ("reference", online.writer)
    judges = {"online.judge": online.judge} | ({} if second is None else {"second": second})
    ends |= {name: ("judge", end) for name, end in judges.items() if end.kind != "embedded"}
    made = _Maker(config, load)
    models = made.models(ends)

    def judge(name: str) -> Judge:
        end = judges[name]
        if name not in models:
            return load_judge(end.model, backbone)
        return PairwiseJudge(
            end.model, models[name], online.both_orders, end.attempts, end.temperature, end.max_tokens, end.seed
        )

    profiler = writer = None
    if "online.profiler" in models:
        p = online.profiler
        profiler = Profiler(models["online.profiler"], p.attempts, p.temperature, p.max_tokens, seed=p.seed)
    if "online.writer" in models:
        w = online.writer
        writer = WrittenReferences(models["online.writer"], w.attempts, w.temperature, w.max_tokens, w.seed)
    return EnvFactory(
        config, models["online.simulator"], judge("online.judge"), profiler, writer, made.ledger,
        None if second is None else judge("second"),
    )  # fmt: skip


class _Maker:
    def __init__(self, config: Config, load: Callable[[str], Backbone]) -> None:
        self.load, self.ledger = load, Ledger()
        self.cache = Path(config.online.cache) if config.online.cache else cache_dir() / "answers"
        self._local: dict[str, Limited] = {}

    def models(self, ends: Mapping[str, tuple[Role, EndpointConfig]]) -> dict[str, ChatModel]:
        """A chat model for each endpoint, by the setting that describes it."""
        out = dict[str, ChatModel]()
        servers: dict[tuple[str, str], list[EndpointConfig]] = {}
        for name, (_, end) in ends.items():
            if end.kind == "openai":
                _check(end, name)
                servers.setdefault((end.base_url, end.model), []).append(end)
        shared = {where: _loosest(found) for where, found in servers.items()}
        for name, (role, end) in ends.items():
            limited = self._on_server(end, shared) if end.kind == "openai" else self._here(end)
            metered = Metered(limited, self.ledger, role, Price(end.price_prompt, end.price_completion))
            out[name] = Cached(Retrying(metered, end.tries, seed=end.seed), self.cache)
        return out

    def _on_server(self, end: EndpointConfig, shared: Mapping[tuple[str, str], Limited]) -> Limited:
        # Address and model are one; time-out and key are the role's own.
        model = OpenAIChat(end.model, end.base_url, end.key_env, end.timeout)
        return Limited(
            model, end.concurrency, end.requests_per_minute, end.tokens_per_minute,
            shared=shared[end.base_url, end.model],
        )  # fmt: skip

    def _here(self, end: EndpointConfig) -> Limited:
        name = EMBEDDED if end.kind == "embedded" else end.model
        if name not in self._local:
            # It writes what waits together: the more calls are let in, the fuller its batches.
            self._local[name] = Limited(LocalChat(self.load(name)), 64)
        return self._local[name]


def _loosest(ends: Sequence[EndpointConfig]) -> Limited:
    """The limits that all roles on one server keep together; where one names none, there is none."""

    def most(values: Sequence[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return max(known) if len(known) == len(values) else None

    first = ends[0]
    return Limited(
        OpenAIChat(first.model, first.base_url), max(end.concurrency for end in ends),
        most([end.requests_per_minute for end in ends]), most([end.tokens_per_minute for end in ends]),
    )  # fmt: skip


def _check(end: EndpointConfig, name: str) -> None:
    if end.model == EMBEDDED or end.model in NAMES:
        raise ConfigError(f"{name}: a server needs the model's name: {name}.model=NAME")
    if public_url(end.base_url) != end.base_url:
        # Settings are written into the run, and this one is not repeated here either.
        raise ConfigError(
            f"{name}.base_url holds more than an address; put the key into an environment variable and name it in "
            f"{name}.key_env"
        )
