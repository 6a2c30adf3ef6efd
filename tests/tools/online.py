"""A miniature online comparison: a tiny backbone, scripted users, judges that count letters, three users who teach."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pamdp.calls_config import JudgeConfig
from pamdp.config import DataConfig, OnlineConfig, RLConfig
from pamdp.data import load_sample, write_dialogues
from pamdp.env.references import WrittenReferences
from pamdp.errors import EndpointError
from pamdp.judges.base import Judge
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.llm.chat import ChatModel, Completion, Decoding
from pamdp.llm.ledger import Ledger, Metered, Role
from pamdp.llm.limits import Retrying
from pamdp.models.backbone import Backbone
from pamdp.models.policy import Policy
from pamdp.reproduce.config import OnlineReproduceConfig
from pamdp.reproduce.main import render
from pamdp.reproduce.online import Online, split_online
from pamdp.reproduce.tables import Table, table
from pamdp.reproduce.work import do_missing
from pamdp.train.env_factory import EnvFactory
from pamdp.train.factory import new_policy
from pamdp.types import Message, Persona
from pamdp.workflows import Result
from tests.tools.methods import VowelJudge
from tests.tools.scripted import Answer, Faulty, ScriptedChat
from tests.tools.tiny import make_tiny_backbone

T, TEACH, TEST = 2, 3, 3
CANARY = "xyzzy"


class Bench:
    """What a comparison is done with; remembers what was said, and its simulator can die after some calls.

    Attributes:
      answers: what the model of a role says, where it is not about bees.
      faults: role -> fault -> share of its calls.
      asks: whether the second judge is a language model.
    """

    def __init__(self, calls: int | None = None) -> None:
        self.said: list[str] = []
        self.left = calls
        self.answers: dict[Role, Answer] = {"judge": vowel_verdict}
        self.faults: dict[Role, dict[str, float]] = {}
        self.asks = False

    def work(self, config: OnlineReproduceConfig, table: Table, path: Path) -> Online:
        """The work of a page."""
        backbone, split = make_tiny_backbone(), split_online(config)
        world, policy = self._world(config), self.policy(config, backbone)
        return Online(config, table, path, backbone, policy, split, world, self.said.append)

    def run(self, config: OnlineReproduceConfig, name: str, path: Path) -> Result:
        """Do what is missing, and write the page."""
        do_missing(lambda: self.work(config, table(name), path))
        return render(config, table(name), path)

    def policy(self, config: OnlineReproduceConfig, backbone: Backbone) -> Policy:
        """A cloned policy whose actions shift something."""
        policy = new_policy(backbone, config.of_run(0))
        assert policy.planner is not None
        policy.planner.actor.sigma.fill_(1.0)
        torch.manual_seed(0)
        torch.nn.init.normal_(policy.planner.injector.a2.weight)
        torch.nn.init.normal_(policy.planner.actor.a1.weight)
        return policy

    def _world(self, config: OnlineReproduceConfig) -> EnvFactory:
        ledger = Ledger()

        def model(role: Role) -> ChatModel:
            faulty = Faulty(self._dying(role), self.faults.get(role, {}), seed=len(role))
            return Retrying(Metered(faulty, ledger, role), attempts=30, sleep=_instantly)

        judge: Judge = VowelJudge("vowels")
        second: Judge = PairwiseJudge("stops", model("judge")) if self.asks else VowelJudge("stops", "ptkbdg")
        evaluation = config.of_evaluation(config.seeds[0])
        return EnvFactory(
            evaluation, model("simulator"), judge, None, WrittenReferences(model("reference")), ledger, second
        )

    def _dying(self, role: Role) -> ChatModel:
        bench = self

        class Model(ScriptedChat):
            async def complete(
                self, messages: Sequence[Message], decoding: Decoding = Decoding(), *, seed: int = 0
            ) -> Completion:
                if role == "simulator" and bench.left is not None:
                    bench.left -= 1
                    if bench.left < 0:
                        raise EndpointError("nobody answers")
                return await super().complete(messages, decoding, seed=seed)

        return Model(self.answers.get(role, _bees), role)


def vowel_verdict(messages: Sequence[Message], seed: int) -> str:
    """What a language model would say that likes vowels."""
    a, b = re.findall(r"<<<\n(.*?)\n>>>", messages[-1].content, re.S)
    return f"[[{'A' if sum(c in 'aeiou' for c in a) > sum(c in 'aeiou' for c in b) else 'B'}]]"


async def _instantly(seconds: float) -> None:
    pass


def _bees(messages: Sequence[Message], seed: int) -> str:
    return f"Well, about {seed % 1000} bees."


def make_config(path: Path) -> OnlineReproduceConfig:
    """Settings of the comparison; its dialogues are written to PATH."""
    some = load_sample("train").dialogues[: TEACH + TEST]
    marked = [
        replace(d, persona=Persona(f"{CANARY} {d.persona.profile}", d.persona.personality), turns=d.turns[:3])
        for d in some
    ]
    write_dialogues(path, marked)
    return OnlineReproduceConfig(
        seeds=(0, 1), methods=("Vanilla", "Prompt", "BC", "RL-base", "PAMDP"), others=2, resamples=200,
        data=DataConfig(path=str(path), test_share=0.5),
        model={"d_a": 8, "depth": 0.5}, clone={"backbone": "frozen"},  # type: ignore[arg-type]
        rl=RLConfig(epochs=1, batch_size=4, actor_every=1, lr_actor=1e-2, max_reply=6, horizon=T),
        online=OnlineConfig(rounds=1, users=TEACH), judge=JudgeConfig(model="vowels"),
        second=JudgeConfig(model="stops"),
    )  # fmt: skip
