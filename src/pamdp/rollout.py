"""One rollout for every kind of user: policies reply, environments answer, transitions come out.

Owns batching, prefix reuse across turns and the features that learning needs. Knows nothing of advantages or of who the
user is. Each state's actions and tokens come from seeds of its own, so results do not depend on the batch, nor on how
many groups of dialogues take turns at writing and waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from pamdp.async_bridge import done
from pamdp.env.dialogue import DialogueEnv
from pamdp.errors import PamdpError
from pamdp.journal import PlayedTurn, Turns
from pamdp.models.critics import privileged_prefixes
from pamdp.models.generate import Sampling
from pamdp.models.place import on_host
from pamdp.models.policy import Policy, Request
from pamdp.models.prefix import Prefix
from pamdp.progress import note
from pamdp.seeds import seed_of
from pamdp.transitions import Rollout, Transition
from pamdp.types import Outcome, TimeStep

T = TypeVar("T")
Act = tuple[Tensor | None, Sequence[Tensor | None]]
"""Mean of an action's distribution, and the actions under which the samples are written; None without a planner."""


@torch.no_grad()
def collect(
    policy: Policy,
    env: DialogueEnv,
    sampling: Sampling,
    *,
    samples: int = 1,
    explore: bool = True,
    scored: bool = False,
    privileged: dict[tuple[str, int], Tensor] | None = None,
    seed: int = 0,
    batch: int = 64,
    groups: int = 1,
    journal: Turns | None = None,
    progress: Callable[[int], None] | None = None,
) -> Rollout:
    """Play every dialogue of ENV to its end or horizon.

    Args:
      samples: replies for each state; the first one is said (with a recorded user all are alternatives).
      explore: draw a ~ q(a|h); otherwise the mean action.
      scored: also give ∇_a log p(u|h, a) of every reply, for the gradient through replies; costs a second pass.
      privileged: also give H(h, ω), for the critic that sees the profile: known features by (dialogue, turn), to which
        new ones are added; None computes none.
      groups: the dialogues are parted into so many groups: one writes while the others wait for users and judges.
      journal: turns that were played before, which are not played again; new ones are added as they end.
      progress: called with the number of replies just written.

    Raises:
      EndpointError: a model cannot be reached; every turn that ended is in the journal.
    """
    play = _Play(policy, env, sampling, samples, explore, scored, privileged, seed, batch, journal, progress)
    moments = play.open()
    flights = deque(play.submit(moments[i::groups]) for i in range(min(groups, len(moments))))
    try:
        while flights:
            if following := play.finish(flights.popleft()):
                flights.append(play.submit(following))
    except PamdpError:
        # One dialogue's failure must not cost what the other groups still bring to an end.
        for flight in flights:
            with suppress(PamdpError):
                play.store(flight)
        raise
    if dropped := play.out.dropped:
        turns = sum(dropped.values())
        note(f"model.overflow=drop: {turns} first turns of {len(dropped)} histories were left out of what is read")
    return play.out


@dataclass(frozen=True, slots=True)
class _Flight:
    """Dialogues whose replies are written and whose outcomes are awaited."""

    moments: list[TimeStep]
    actions: list[Act]
    replies: list[Sequence[str]]
    outcomes: list[Future[list[Outcome]]]


@dataclass(slots=True)
class _Play:
    policy: Policy
    env: DialogueEnv
    sampling: Sampling
    samples: int
    explore: bool
    scored: bool
    privileged: dict[tuple[str, int], Tensor] | None
    seed: int
    batch: int
    journal: Turns | None
    progress: Callable[[int], None] | None
    prefixes: dict[str, Prefix] = field(default_factory=dict)
    seen: dict[str, Prefix] = field(default_factory=dict)
    out: Rollout = field(default_factory=lambda: Rollout([], {}, {}, {}))

    @property
    def sigma(self) -> float:
        """Standard deviation of the actions: 0 where they are the mean, or there is no planner."""
        planner = self.policy.planner
        return float(planner.actor.sigma) if planner is not None and self.explore else 0.0

    def open(self) -> list[TimeStep]:
        """The first moments, in the order of the environment's users."""
        known = {} if self.journal is None else self.journal.openings
        keys = [key for key in self.env.users if key not in known]
        futures = dict(zip(self.env.open(keys), keys, strict=True))
        opened = dict(known)
        for future in _ended(futures):
            opened[futures[future]] = moment = future.result()
            if self.journal is not None:
                self.journal.open(moment)
        return [opened[key] for key in self.env.users]

    def submit(self, moments: list[TimeStep]) -> _Flight:
        """Write replies to moments and hand them to the environment, without waiting for what comes of them."""
        with self.policy.active():  # once for all: switching has its price
            add_features(self.policy, moments, self.prefixes, self.seen, self.privileged, self.out, self.scored)
        known = [None if self.journal is None else self.journal.turns.get((m.key, m.t)) for m in moments]
        asked = [i for i, played in enumerate(known) if played is None]
        acts = [self._act(moments[i]) for i in asked]
        new = iter(_on_host(acts))
        drawn = [next(new) if played is None else _stored(played) for played in known]
        replies: list[Sequence[str]] = [() if played is None else played.replies for played in known]
        written = self._write([moments[i] for i in asked], [actions for _, actions in acts])
        for i, group in zip(asked, written, strict=True):
            replies[i] = group
        begun = iter(self.env.begin([moments[i] for i in asked], [replies[i] for i in asked]) if asked else ())
        return _Flight(moments, drawn, replies, [next(begun) if p is None else done(list(p.outcomes)) for p in known])

    def finish(self, flight: _Flight) -> list[TimeStep]:
        """Wait for the outcomes, store each turn as it ends, and give the moments that want a reply next."""
        self.store(flight)
        following, last, ended = [], [], []
        sigma = self.sigma  # one wait for the device
        for moment, (mean, actions), group, future, scores in zip(
            flight.moments, flight.actions, flight.replies, flight.outcomes, self._scores(flight), strict=True
        ):
            outcomes = future.result()
            after = outcomes[0].next
            name = None if after is None else (after.key, after.t)
            for k, (reply, action, outcome, score) in enumerate(zip(group, actions, outcomes, scores, strict=True)):
                drawn = action, mean, sigma
                self.out.transitions.append(
                    Transition(moment.key, moment.t, k, reply, *drawn, outcome.reward, name, outcome.truncated, score)
                )
            if after is not None and not outcomes[0].truncated:
                following.append(after)
                continue
            ended.append(moment.key)
            if after is not None:
                last.append(after)
        if last:
            with self.policy.active():
                add_features(self.policy, last, self.prefixes, self.seen, self.privileged, self.out, self.scored)
        for key in ended:
            self.prefixes.pop(key, None)
            self.seen.pop(key, None)
        return following

    def _act(self, moment: TimeStep) -> Act:
        seed = seed_of(self.seed, "action", moment.key, moment.t) if self.explore else None
        return self.policy.act(self.policy.features(self.prefixes[moment.key]), self.samples, seed)

    def _write(self, moments: list[TimeStep], actions: list[Sequence[Tensor | None]]) -> list[Sequence[str]]:
        requests = [
            Request(i, -1, action, seed_of(self.seed, moment.key, moment.t, k))
            for i, (moment, drawn) in enumerate(zip(moments, actions, strict=True))
            for k, action in enumerate(drawn)
        ]
        prefixes = [self.prefixes[m.key] for m in moments]
        replies = self.policy.write(prefixes, requests, self.sampling, self.batch, self.progress) if requests else []
        return [replies[i : i + self.samples] for i in range(0, len(replies), self.samples)]

    def _scores(self, flight: _Flight) -> list[Sequence[Tensor | None]]:
        """∇_a log p(u|h, a) of every reply of a flight, by one copy for all; None without a planner."""
        if not self.scored or self.policy.planner is None:
            return [[None] * len(group) for group in flight.replies]
        found = list[Tensor]()
        for moment, (_, actions), group in zip(flight.moments, flight.actions, flight.replies, strict=True):
            ids = [self.policy.backbone.chat.reply(reply) for reply in group]
            known = [action for action in actions if action is not None]
            found += self.policy.scores(self.prefixes[moment.key], -1, ids, known)
        new = iter(on_host(found))
        return [[next(new) for _ in group] for group in flight.replies]

    def store(self, flight: _Flight) -> None:
        """Add the turns of a flight to the journal, each as it ends."""
        index = {future: i for i, future in enumerate(flight.outcomes)}
        for future in _ended(index):
            i = index[future]
            moment, (mean, actions) = flight.moments[i], flight.actions[i]
            if self.journal is None or (moment.key, moment.t) in self.journal.turns:
                continue
            self.journal.add(
                PlayedTurn(
                    moment.key,
                    moment.t,
                    tuple(flight.replies[i]),
                    tuple(None if action is None else action.tolist() for action in actions),
                    None if mean is None else mean.tolist(),
                    tuple(future.result()),
                )
            )


def add_features(
    policy: Policy,
    moments: Sequence[TimeStep],
    prefixes: dict[str, Prefix],
    seen: dict[str, Prefix],
    privileged: dict[tuple[str, int], Tensor] | None,
    out: Rollout,
    scored: bool = True,
) -> None:
    """Add H(h) and, where PRIVILEGED is given, H(h, ω) of moments to a rollout.

    SCORED says that replies to the moments will be, see `Policy.prefixes`.
    PREFIXES and SEEN are those of the same dialogues' earlier turns: they are extended, not computed again.
    """
    read = [policy.fitted(moment.history) for moment in moments]
    for moment, history in zip(moments, read, strict=True):
        if dropped := (len(moment.history) - len(history)) // 2:
            out.dropped[moment.key, moment.t] = dropped
            prefixes.pop(moment.key, None)  # what is left does not continue it
    known = [prefixes.get(moment.key) for moment in moments]
    found = policy.prefixes(read, known, scored)
    for moment, prefix, own in zip(moments, found, on_host([policy.features(p) for p in found]), strict=True):
        out.moments[moment.key, moment.t] = moment
        prefixes[moment.key] = prefix
        out.features_h[moment.key, moment.t] = own
    if privileged is None:
        return
    new = [moment for moment in moments if (moment.key, moment.t) not in privileged]
    found = privileged_prefixes(policy, new, [seen.get(m.key) for m in new])
    for moment, prefix, own in zip(new, found, on_host([policy.features(p) for p in found]), strict=True):
        seen[moment.key] = prefix
        privileged[moment.key, moment.t] = own
    for moment in moments:
        out.features_hw[moment.key, moment.t] = privileged[moment.key, moment.t]


def _on_host(acts: Sequence[Act]) -> Iterator[Act]:
    """Means and actions as they are stored and learned from: on the CPU, by one copy for all."""
    known = iter(on_host([x for mean, actions in acts for x in (mean, *actions) if x is not None]))
    for mean, actions in acts:
        yield (None if mean is None else next(known)), [None if a is None else next(known) for a in actions]


def _stored(played: PlayedTurn) -> Act:
    """The actions of a turn that was played before."""
    mean = None if played.mean is None else torch.tensor(played.mean)
    return mean, [None if action is None else torch.tensor(action) for action in played.actions]


def _ended(futures: Iterable[Future[T]]) -> Iterator[Future[T]]:
    """Futures as they end well; once all have ended, the first failure is raised: it must not take the others along."""
    failed: list[BaseException] = []
    for future in as_completed(futures):
        error = future.exception()
        if error is None:
            yield future
        else:
            failed.append(error)
    if failed:
        raise failed[0]
