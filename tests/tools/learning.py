"""Online learning in miniature: a tiny backbone, four users, two rounds of three turns, scripted chat models.

Run as a program it learns in a folder, and can be killed in the middle: `python -m tests.tools.learning RUN [CALLS]`.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pamdp.config import CloneConfig, Config, ModelConfig, OnlineConfig, RLConfig
from pamdp.data import load_sample
from pamdp.env.profile import Profiler
from pamdp.env.references import WrittenReferences
from pamdp.files import Json
from pamdp.fingerprint import Fingerprint
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.launch import Launcher
from pamdp.llm.chat import Around, ChatModel, Completion, Decoding
from pamdp.llm.ledger import Ledger, Metered, Role
from pamdp.llm.limits import Limited, Retrying
from pamdp.models.policy import Policy
from pamdp.runs import Run
from pamdp.train.env_factory import EnvFactory
from pamdp.train.factory import new_policy
from pamdp.train.online import online
from pamdp.train.site import Site
from pamdp.types import Dialogue, Message, Persona
from tests.tools.online import vowel_verdict
from tests.tools.scripted import Faulty, ScriptedChat
from tests.tools.tiny import make_tiny_backbone

PRINT = Fingerprint(data="0", model="tiny", revision="0")
CANARY = "xyzzy"
T, USERS, ROUNDS = 3, 4, 2
SILENT = "who says nothing"


def make_learning(**settings: object) -> Config:
    return Config(
        model=ModelConfig(d_a=8, depth=0.5),
        clone=CloneConfig(backbone="frozen"),
        rl=RLConfig(
            epochs=2, batch_size=4, actor_every=1, lr_actor=1e-2, max_reply=6, horizon=T, profile="inferred",
            **settings,
        ),
        online=OnlineConfig(rounds=ROUNDS, users=USERS, groups=2, reference="written"),
    )  # fmt: skip


def make_dialogues(silent: bool = False) -> list[Dialogue]:
    """Users of the sample whose profiles hold a canary; the last may be one whose model has no usable answer."""

    def marked(d: Dialogue, word: str) -> Dialogue:
        return replace(d, persona=Persona(f"{word} {d.persona.profile}", d.persona.personality), turns=d.turns[:2])

    some = load_sample("train").dialogues[: USERS + 1]
    return [marked(d, f"{CANARY} {SILENT}" if silent and d is some[-1] else CANARY) for d in some]


def make_policy(config: Config) -> Policy:
    policy = new_policy(make_tiny_backbone(), config)
    assert policy.planner is not None
    policy.planner.actor.sigma.fill_(1.0)
    torch.manual_seed(0)
    torch.nn.init.normal_(policy.planner.injector.a2.weight)
    return policy


def _talk(messages: Sequence[Message], seed: int) -> str:
    return "" if SILENT in messages[0].content else f"Well, I would say {seed % 1000}."


def _tell(messages: Sequence[Message], seed: int) -> str:
    turns = len(re.findall(r"^\[\d+\] Person", messages[-1].content, re.M))
    return f"[{turns}] {CANARY} after {turns} messages"


ANSWERS: dict[Role, Callable[[Sequence[Message], int], str]] = {
    "simulator": _talk, "profiler": _tell, "judge": vowel_verdict,
    "reference": lambda messages, seed: f"Have a tea, or {seed % 10}.",
}  # fmt: skip


async def _instantly(seconds: float) -> None:
    pass


def make_world(
    config: Config, rates: Mapping[str, float] | None = None, wrap: Callable[[Role, ChatModel], ChatModel] | None = None
) -> EnvFactory:
    ledger = Ledger()

    def model(role: Role) -> ChatModel:
        found: ChatModel = ScriptedChat(ANSWERS[role], role)
        if wrap is not None:
            found = wrap(role, found)
        faulty = Faulty(found, rates or {}, seed=len(role))
        return Retrying(Metered(Limited(faulty), ledger, role), attempts=20, sleep=_instantly)

    judge = PairwiseJudge("j", model("judge"))
    writer = WrittenReferences(model("reference"))
    return EnvFactory(config, model("simulator"), judge, Profiler(model("profiler")), writer, ledger)


def learn(
    path: Path,
    config: Config,
    dialogues: Sequence[Dialogue],
    world: EnvFactory,
    launcher: Launcher[Site] | None = None,
) -> tuple[dict[str, torch.Tensor], list[dict[str, Json]]]:
    policy = make_policy(config)
    with Run.resume(path, config, PRINT) if path.exists() else Run.create(path, config, PRINT) as run:
        trained = online(policy, dialogues, world, config, run, launcher=launcher)
        return dict(trained.trained_planner.state_dict()), run.traces()


class Killer(Around):
    """A chat model that takes the whole process with it after some calls, as a power failure would."""

    def __init__(self, model: ChatModel, calls: int) -> None:
        super().__init__(model)
        self.left = calls

    async def complete(
        self, messages: Sequence[Message], decoding: Decoding = Decoding(), *, seed: int = 0
    ) -> Completion:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return await self.model.complete(messages, decoding, seed=seed)


def main(path: Path, calls: int | None) -> None:
    """Learn in PATH, from users one of whom says nothing; die at the judge's call number CALLS."""

    def wrap(role: Role, model: ChatModel) -> ChatModel:
        return Killer(model, calls) if role == "judge" and calls is not None else model

    config = make_learning()
    learn(path, config, make_dialogues(silent=True), make_world(config, wrap=wrap))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
