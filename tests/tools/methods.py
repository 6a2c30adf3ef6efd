"""A miniature comparison: tiny backbones, three training users, two test users, a judge that counts vowels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pamdp.baselines.config import DpoConfig, FitConfig, GrpoConfig, OppuConfig, TuneConfig
from pamdp.baselines.method import Job
from pamdp.config import CloneConfig, Config, ModelConfig, RLConfig
from pamdp.data import load_sample
from pamdp.errors import ConfigError, ModelError
from pamdp.judges.base import Case, Verdict
from pamdp.judges.scores import ReplyScorer
from pamdp.models.backbone import Backbone
from pamdp.reproduce.cells import Grid
from pamdp.reproduce.config import ReproduceConfig
from pamdp.reproduce.main import render
from pamdp.reproduce.offline import Offline
from pamdp.reproduce.tables import Table
from pamdp.reproduce.work import do_missing
from pamdp.types import Dialogue, Message, Turn
from pamdp.workflows import Result
from tests.tools.scripted import ScriptedChat
from tests.tools.tiny import make_tiny_backbone

FIT = {"epochs": 1, "batch_size": 4, "lr": 1e-2}
TUNE = TuneConfig(
    full=FitConfig(**FIT),
    thought=6,
    oppu=OppuConfig(**FIT, rank=2, user_epochs=1, user_lr=1e-1, retrieved_tokens=24),
    dpo=DpoConfig(**FIT, rank=2),
    grpo=GrpoConfig(**FIT, rank=2),
)
CLONE = CloneConfig(epochs=1, batch_size=2, save_every=1)
RL = RLConfig(rounds=1, samples=2, epochs=1, batch_size=4, actor_every=1, lr_actor=1e-2, max_reply=6, dialogues=2)
MODEL = ModelConfig(d_a=8, depth=0.5)


class VowelJudge:
    """Prefers the reply with the larger share of vowels; `name` lets several stand side by side."""

    def __init__(self, name: str = "vowels", letters: str = "aeiou") -> None:
        self.name, self.letters = name, letters
        self.fingerprint = {"name": name, "letters": letters}

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        return [self._verdict(self._share(c.a) - self._share(c.b)) for c in cases]

    def _share(self, text: str) -> float:
        return sum(c in self.letters for c in text) / max(len(text), 1)

    def _verdict(self, gap: float) -> Verdict:
        return Verdict(0.0, 0.0, 1.0) if gap == 0 else Verdict(0.9, 0.1) if gap > 0 else Verdict(0.1, 0.9)


def vowel_judge(name: str) -> VowelJudge:
    """One of two judges of a miniature comparison."""
    if name not in ("vowels", "stops"):
        raise ConfigError(f"no judge {name!r}")
    return VowelJudge(name, {"vowels": "aeiou", "stops": "ptkbdg"}[name])


def _scores(messages: Sequence[Message], seed: int) -> str:
    """Likes long answers; where the preference is named, so does it follow it."""
    text = messages[-1].content
    reply = text.partition("<<<\n")[2].partition("\n>>>")[0]
    if "mentions:" in text:
        return f"mentions: yes\ninvents: no\nviolates: {'yes' if len(reply) % 2 else 'no'}\nhelps: yes"
    return f"[[{1 + len(reply) % 5}]]"


class Bench:
    """What a comparison is done with; remembers what was done, and can die at any piece of work.

    It may be sent to another process, which then has one of its own; that process may lack the models.
    """

    def __init__(self, dies_at: int | None = None, only_here: bool = False) -> None:
        self.said: list[str] = []
        self.dies_at = dies_at
        self.home = os.getpid() if only_here else None

    def work(self, config: ReproduceConfig, table: Table, path: Path) -> Offline:
        """The work of a table."""
        return Offline(Grid(config, table, path), self._load, vowel_judge, _scorer, self._say)

    def run(self, config: ReproduceConfig, table: Table, path: Path, jobs: int = 1) -> Result:
        """Do what is missing, and write the page."""
        do_missing(partial(self.work, config, table, path), jobs)
        return render(config, table, path)

    def _load(self, name: str) -> Backbone:
        if self.home not in (None, os.getpid()):
            raise ModelError(f"no model {name} in this process")
        return make_tiny_backbone()

    def _say(self, text: str) -> None:
        self.said.append(text)
        if self.dies_at is not None and len(self.said) > self.dies_at:
            raise KeyboardInterrupt


def _scorer(name: str) -> ReplyScorer:
    return ReplyScorer(name, ScriptedChat(_scores, name))


def few(part: str, users: int, turns: int = 2) -> tuple[Dialogue, ...]:
    """The first turns of the sample's first dialogues, their messages cut short."""
    found = load_sample(part).dialogues[:users]
    return tuple(replace(d, turns=tuple(_short(turn) for turn in d.turns[:turns])) for d in found)


def _short(turn: Turn) -> Turn:
    preferred, rejected = (text and " ".join(text.split()[:6]) for text in (turn.preferred, turn.rejected))
    return replace(turn, user=" ".join(turn.user.split()[:8]), preferred=preferred, rejected=rejected)


def make_job(root: Path, train: Sequence[Dialogue] | None = None, seed: int = 0) -> Job:
    """A job on the tiny backbone."""
    config = Config(seed=seed, model=MODEL, clone=CLONE, rl=RL)
    return Job(few("train", 3) if train is None else train, config, TUNE, make_tiny_backbone, VowelJudge, root, "data")
