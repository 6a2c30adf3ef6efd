"""What a method is: a name, a way to learn, and what it costs.

Owns the job that every method is given, the statement of its budget, and the words for what data lack. Knows no method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pamdp.baselines.config import TuneConfig
from pamdp.baselines.replies import Replier
from pamdp.config import MAY_CHANGE, Config
from pamdp.fingerprint import Fingerprint
from pamdp.judges.base import Judge, in_role
from pamdp.llm.ledger import Ledger
from pamdp.models.backbone import Backbone
from pamdp.registry import METHODS
from pamdp.runs import Run
from pamdp.settings import flatten
from pamdp.types import Dialogue


@dataclass(frozen=True, slots=True)
class Job:
    """All that a method may use to learn; test users are no part of it.

    Attributes:
      train: dialogues of the training users.
      config, tune: settings; the seed is `config.seed`.
      load: gives a backbone of the method's own, which it may change.
      judge: gives the judge that rewards.
      root: folder that all methods of this seed share.
      data: sha256 of the dialogues.
      ledger: the account of the judge's calls.
    """

    train: Sequence[Dialogue]
    config: Config
    tune: TuneConfig
    load: Callable[[], Backbone]
    judge: Callable[[], Judge]
    root: Path
    data: str
    ledger: Ledger = field(default_factory=Ledger)

    def open(self, name: str, config: Config, backbone: Backbone, judges: Sequence[Judge] = ()) -> Run:
        """The run in `root/NAME`: a new one, or the interrupted one."""
        torch.manual_seed(config.seed)
        prints = tuple(in_role(judge, "reward") for judge in judges)
        fingerprint = Fingerprint(data=self.data, judges=prints, **backbone.identity)
        if not (self.root / name).exists():
            return Run.create(self.root / name, config, fingerprint)
        # Who rewards is compared by its fingerprint, and how it is reached may change.
        judging = ("cache", *(key for key in flatten(config) if key.startswith("judge.")))
        return Run.resume(self.root / name, config, fingerprint, (*MAY_CHANGE, *judging))


@dataclass(frozen=True, slots=True)
class Budget:
    """What a method may use. `context` and `reply` are the same for all methods of a comparison.

    Attributes:
      context: longest history, its instruction included, in tokens; dialogues are cut where they would be longer.
      reply: longest reply, in tokens.
      beside: tokens read or written for one reply beside these: a profile, earlier exchanges once more.
      examples: replies of the data that are learned from, counted once per epoch.
      draws: replies drawn while learning.
      verdicts: questions to the judge while learning.
      weights: what learns.
    """

    context: int
    reply: int
    beside: int = 0
    examples: int = 0
    draws: int = 0
    verdicts: int = 0
    weights: str = "none"


def untrained(config: Config, tune: TuneConfig, turns: int) -> Budget:
    """The budget of a method that does not learn."""
    return Budget(config.clone.max_context, config.rl.max_reply)


def nothing(train: Sequence[Dialogue]) -> str:
    """What dialogues lack for a method that learns from any."""
    return ""


def no_preferred(train: Sequence[Dialogue]) -> str:
    """What dialogues without any good reply lack, in one clause, for a method that learns them."""
    return "" if any(turn.preferred for d in train for turn in d.turns) else "no training turn has a preferred reply"


def no_pairs(train: Sequence[Dialogue]) -> str:
    """The same for a method that learns from a good and a bad reply to one history."""
    found = any(turn.preferred and turn.rejected for d in train for turn in d.turns)
    return "" if found else "no training turn has a preferred and a rejected reply"


@dataclass(frozen=True, slots=True)
class Method:
    """One row of a comparison.

    Attributes:
      name: in tables and folders.
      train: learns, and gives what replies.
      budget: from settings and the number of training turns.
      seeded: whether another seed gives another replier; if not, it is run once.
      shares: folder of a seed that several methods write to; they are not trained at the same time. Empty: its own.
      lacks: what training dialogues lack for this method to learn from them, in one clause; empty if nothing.
    """

    name: str
    train: Callable[[Job], Replier]
    budget: Callable[[Config, TuneConfig, int], Budget] = untrained
    seeded: bool = True
    shares: str = ""
    lacks: Callable[[Sequence[Dialogue]], str] = nothing


def register(method: Method) -> Method:
    """Make METHOD known by its name; one of the same name is replaced."""
    return METHODS.add(method.name, method)


def register_method(
    name: str,
    *,
    budget: Callable[[Config, TuneConfig, int], Budget] = untrained,
    seeded: bool = True,
    lacks: Callable[[Sequence[Dialogue]], str] = nothing,
) -> Callable[[Callable[[Job], Replier]], Callable[[Job], Replier]]:
    """Decorator: make a function from a `Job` to a `Replier` a row of the tables, by NAME; the rest as of `Method`."""

    def add(train: Callable[[Job], Replier]) -> Callable[[Job], Replier]:
        register(Method(name, train, budget, seeded, lacks=lacks))
        return train

    return add
