"""From settings to the world that an assistant learns in: simulated users, profiler, judge and reference writer.

Owns who is in that world. Knows nothing of loops, nor of what stands around a model that is called (llm/stack.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pamdp.calls_config import EndpointConfig, JudgeConfig
from pamdp.config import MAY_CHANGE, Config
from pamdp.env.profile import Profiler
from pamdp.env.references import WrittenReferences
from pamdp.env.simulated import SimulatedUser
from pamdp.env.user import User
from pamdp.judges.base import Judge, in_role
from pamdp.judges.graders import make_judge
from pamdp.llm.chat import ChatModel
from pamdp.llm.ledger import Ledger, Role
from pamdp.llm.limits import Limiter
from pamdp.llm.stack import asking, build_chat_models
from pamdp.models.backbone import Backbone
from pamdp.place_config import PlaceConfig
from pamdp.registry import USERS
from pamdp.seeds import seed_of
from pamdp.types import Dialogue

OPERATION = (
    "base_url", "key_env", "timeout", "tries", "concurrency", "requests_per_minute", "tokens_per_minute",
    *PlaceConfig.model_fields,
)  # fmt: skip
"""Settings of an endpoint that a resumed run may change: they decide where from and when an answer comes, not which."""
NAMED = ("judge.kind", "judge.model")
"""Settings that an offline run may change besides: its fingerprint says who rewards, and before it alone did."""
ENDS = ("judge", "online.simulator", "online.profiler", "online.writer")


def may_change(more: Sequence[str] = ()) -> tuple[str, ...]:
    """Dotted names of the settings that may differ when a run is resumed; MORE endpoints beside ENDS."""
    ends = (*ENDS, *more)
    return (*MAY_CHANGE, *(f"{end}.{name}" for end in ends for name in OPERATION))


@dataclass(slots=True)
class EnvFactory:
    """Who an assistant talks with, and who rewards it."""

    config: Config
    simulator: ChatModel | None  # plays the users; None where `online.user` names others, who need none
    judge: Judge  # decides rewards
    profiler: Profiler | None = None  # infers ω_t of simulated users; None: ω_t is the persona
    writer: WrittenReferences | None = None  # writes u_g; None: a policy does
    ledger: Ledger = field(default_factory=Ledger)
    second: Judge | None = None  # gives a second opinion, where somebody asked for one; it never rewards

    def user(self, dialogue: Dialogue, seed: int) -> User:
        """The user of a record; SEED makes another dialogue of the same user."""
        online = self.config.online
        if self.simulator is None:
            return USERS[online.user](dialogue, seed)
        how = asking(online.simulator)
        return SimulatedUser(
            dialogue.id, dialogue.persona, self.simulator,
            opening=dialogue.turns[0].user if online.opening == "recorded" else None,
            profiler=self.profiler, difficulty=online.difficulty, how=replace(how, seed=seed_of(how.seed, seed)),
        )  # fmt: skip

    def fingerprints(self, dialogues: Sequence[Dialogue]) -> tuple[dict[str, str], ...]:
        """What identifies everybody in this world, for a run's fingerprint; a user without one is its name."""
        user = getattr(self.user(dialogues[0], 0), "fingerprint", {"name": self.config.online.user})
        parts = [part.fingerprint for part in (self.profiler, self.writer) if part is not None]
        return ({"role": "simulator", **user}, in_role(self.judge, "reward"), *parts)


def make_env_factory(
    config: Config, backbone: Backbone, second: JudgeConfig | None = None, limiter: Limiter | None = None
) -> EnvFactory:
    """The world that the settings describe; nothing is called yet. BACKBONE: for a judge that needs one.

    SECOND is asked in both orders where `judge` is; LIMITER as of build_chat_models.

    ConfigError: settings of an endpoint do not fit together, or name no judge. ModelError: a model here is missing.
    """
    online = config.online
    ends: dict[str, tuple[Role, EndpointConfig]] = {}
    if online.user == "simulated":
        ends["online.simulator"] = ("simulator", online.simulator)
        if config.rl.profile == "inferred":
            ends["online.profiler"] = ("profiler", online.profiler)
    if online.reference == "written":
        ends["online.writer"] = ("reference", online.writer)
    judges = {"judge": config.judge}
    if second is not None:
        judges["second"] = second.model_copy(update={"both_orders": config.judge.both_orders})
    ends |= {name: ("judge", end) for name, end in judges.items() if end.kind != "embedded"}
    ledger = Ledger()
    models = build_chat_models(ends, ledger, Path(config.cache) if config.cache else None, limiter=limiter)
    made = {name: make_judge(end, lambda: backbone, models.get(name)) for name, end in judges.items()}
    profiler, writer = models.get("online.profiler"), models.get("online.writer")
    return EnvFactory(
        config, models.get("online.simulator"), made["judge"],
        None if profiler is None else Profiler(profiler, asking(online.profiler)),
        None if writer is None else WrittenReferences(writer, asking(online.writer)),
        ledger, made.get("second"),
    )  # fmt: skip


def make_rewards(
    config: Config, backbone: Callable[[], Backbone], limiter: Limiter | None = None
) -> tuple[Judge, Ledger]:
    """The judge alone, for rewards without users, and the account of its calls; errors as of make_env_factory."""
    ledger, end = Ledger(), config.judge
    ends: dict[str, tuple[Role, EndpointConfig]] = {} if end.kind == "embedded" else {"judge": ("judge", end)}
    models = build_chat_models(ends, ledger, Path(config.cache) if config.cache else None, limiter=limiter)
    return make_judge(end, backbone, models.get("judge")), ledger
