"""What plays and writes, here or at a worker: policy, judges and users, built once; and which policy is meant.

Owns the site that launchers do items at (launch.py), how a policy is named to one that has its backbone already, and
replies to records that are parted among sites. Knows nothing of loops.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self
from uuid import uuid4

from torch import Tensor

from pamdp.config import Config
from pamdp.journal import Journal, PlayedTurn, Turns
from pamdp.judges.base import Judge, forget
from pamdp.launch import Launcher, Tell
from pamdp.llm.ledger import Ledger
from pamdp.models.backbone import Backbone, Readout
from pamdp.models.policy import Policy
from pamdp.models.recorded import BLOCK, Actions, Replies, greedy_replies
from pamdp.progress import Progress
from pamdp.shards import blocks
from pamdp.train.env_factory import EnvFactory
from pamdp.types import Dialogue, TimeStep


@dataclass(slots=True)
class Site:
    """Everything that is built once.

    Attributes:
      policy: the cloned one.
      bare: the plain backbone; None: that of the policy.
      ledger: the account of the calls that are made here.
      world: the users, and the judge who rewards.
      judges: by name.
    """

    policy: Policy
    bare: Backbone | None = None
    ledger: Ledger = field(default_factory=Ledger)
    world: EnvFactory | None = None
    judges: Mapping[str, Judge] = field(default_factory=dict)
    _round: str = ""

    def policy_of(self, named: Policy | Author) -> Policy:
        """The policy that is meant."""
        return named if isinstance(named, Policy) else named.on(self)

    def begin(self, name: str, judge: Judge) -> None:
        """Have a judge answer as a new one would, when the round of that name begins here."""
        if self._round != name:
            self._round = name
            forget(judge)


@dataclass(frozen=True, slots=True)
class Author:
    """A policy as plain data, for a site that has its backbone: the weights of its planner, or None without one."""

    planner: dict[str, Tensor] | None
    readout: Readout
    system: str
    config: Config

    @classmethod
    def of(cls, policy: Policy) -> Self:
        """The data of a policy that learned from the site's clone, or of the plain model."""
        weights = None if policy.planner is None else {k: x.cpu() for k, x in policy.planner.state_dict().items()}
        return cls(weights, policy.readout, policy.system, policy.config)

    def on(self, site: Site) -> Policy:
        """The policy, at a site."""
        if self.planner is None:
            base = Policy(site.bare or site.policy.backbone)
        else:
            planner = copy.deepcopy(site.policy.trained_planner)
            planner.load_state_dict(self.planner)
            base = replace(site.policy, planner=planner)
        return replace(base, readout=self.readout, system=self.system, config=self.config)


def named(policy: Policy, launcher: Launcher[Site]) -> Policy | Author:
    """How POLICY is named to the sites of a launcher."""
    return Author.of(policy) if launcher.workers else policy


@dataclass(frozen=True, slots=True)
class Round:
    """What all parts of a round share; NAME tells it from every other one.

    Attributes:
      learns: actions are drawn, replies rewarded and features of the profile given; otherwise dialogues are played.
      written: references are written by the world's writer, if it has one.
    """

    policy: Policy | Author
    config: Config
    seed: int
    learns: bool = True
    written: bool = True
    name: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, slots=True)
class Known:
    """What was played before of some dialogues."""

    openings: Mapping[str, TimeStep]
    turns: Mapping[tuple[str, int], PlayedTurn]

    @classmethod
    def of(cls, journal: Journal, dialogues: Sequence[Dialogue]) -> Self:
        """What JOURNAL has of DIALOGUES now."""
        ids = {dialogue.id for dialogue in dialogues}
        return cls(
            {key: moment for key, moment in journal.openings.items() if key in ids},
            {state: turn for state, turn in journal.turns.items() if state[0] in ids},
        )

    def telling(self, tell: Tell) -> Turns:
        """The same as what a rollout takes: turns that end are told."""
        return _Telling(dict(self.openings), dict(self.turns), tell)


@dataclass(slots=True)
class _Telling:
    openings: dict[str, TimeStep]
    turns: dict[tuple[str, int], PlayedTurn]
    tell: Tell

    def open(self, moment: TimeStep) -> None:
        self.tell(moment)
        self.openings[moment.key] = moment

    def add(self, played: PlayedTurn) -> None:
        self.tell(played)
        self.turns[played.key, played.t] = played


def listener(launcher: Launcher[Site], journal: Journal | None, progress: Callable[[int, str], None]) -> Tell:
    """Who hears what is told of a round: turns go into JOURNAL, PROGRESS is told how many replies were written."""

    def heard(event: object) -> None:
        if isinstance(event, int):
            progress(event, launcher.rates())
        elif journal is not None and isinstance(event, TimeStep):
            journal.open(event)
        elif journal is not None and isinstance(event, PlayedTurn):
            journal.add(event)

    return heard


def replies_to(
    launcher: Launcher[Site],
    policy: Policy,
    dialogues: Sequence[Dialogue],
    max_reply: int,
    what: str,
    actions: Actions | None = None,
) -> Replies:
    """One greedy reply of at most MAX_REPLY tokens to every state, behind a bar called WHAT; see `greedy_replies`."""

    def part(some: Sequence[Dialogue]) -> tuple[Sequence[Dialogue], Actions | None]:
        own = actions and {(d.id, t): actions[d.id, t].cpu() for d in some for t in range(len(d.turns))}
        return some, own

    parts = blocks(dialogues, launcher.workers, BLOCK if launcher.workers else len(dialogues))
    with Progress(what, sum(len(d.turns) for d in dialogues), share=True) as bar:
        heard = listener(launcher, None, bar.advance)
        shared = named(policy, launcher), max_reply
        found = launcher.map(_write, shared, [partial(part, some) for some in parts], heard)
    return {state: reply for replies in found for state, reply in replies.items()}


def _write(
    site: Site, shared: tuple[Policy | Author, int], part: tuple[Sequence[Dialogue], Actions | None], tell: Tell
) -> Replies:
    (author, max_reply), (dialogues, actions) = shared, part
    policy = site.policy_of(author)
    if actions is not None:
        actions = {state: action.to(policy.backbone.device) for state, action in actions.items()}
    return greedy_replies(policy, dialogues, max_reply, actions, tell)
