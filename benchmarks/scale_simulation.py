"""Online rounds on many workers, in virtual time: the planner goes out, workers play dialogues, the learner learns.

A worker plays its share as `pamdp.rollout.collect` does: in groups, one of which writes while the others wait for their
users and judges; a group's next replies are written when all its outcomes are there. Calls of all workers share the
limits of their servers, as `pamdp.llm.limits` keeps them. Owns events and who is to blame for each second. Knows
nothing of tables, and computes no reply.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import simpy

from benchmarks.scale_costs import Costs, WorkerCosts
from pamdp.calls_config import EndpointConfig
from pamdp.config import Config
from pamdp.errors import ConfigError
from pamdp.llm.limits import WINDOW
from pamdp.llm.stack import HERE
from pamdp.seeds import seed_of
from pamdp.train.estimate import RoleCost, estimate
from pamdp.types import Dialogue

CAUSES = ("decode", "calls", "judge", "users", "sync", "learner", "form", "slow")
"""What a second of a round is spent on, on the way that the last worker's work took: reading and writing replies,
answers of servers, the limits of the judge's and of the users' servers, transfers, the learner's update, the check of
form, and slow or dying workers."""
LIMITS = {"judge": "judge", "reference": "judge", "simulator": "users", "profiler": "users"}
"""Whose limits a role waits at."""
Events = Generator[simpy.Event, Any, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """One call: who was asked, and when it was asked for, let through and answered."""

    role: str
    asked: float
    admitted: float
    ended: float


class Server:
    """A server's limits, as `pamdp.llm.limits.Limits` keeps them, in virtual time."""

    def __init__(self, env: simpy.Environment, concurrency: float, requests: float, tokens: float) -> None:
        self.env, self.requests, self.tokens = env, requests, tokens
        # simpy looks through all who hold a slot whenever one leaves: where none is refused, none is held.
        self.slots = None if math.isinf(concurrency) else simpy.Resource(env, int(concurrency))
        self.door = simpy.Resource(env, 1)
        self.past: deque[tuple[float, float]] = deque()
        self.spent = self.tokens_asked = 0.0

    def call(self, role: str, seconds: float, tokens: float) -> Events:
        """Wait to be let through, then for the answer; gives the span."""
        asked = self.env.now
        self.tokens_asked += tokens
        tokens = min(tokens, self.tokens)
        with nullcontext() if self.slots is None else self.slots.request() as slot:
            if slot is not None:
                yield slot
            with self.door.request() as turn:
                yield turn
                while not self._fits(tokens):
                    yield self.env.timeout(max(self.past[0][0] + WINDOW - self.env.now, 1e-3))
                self.past.append((self.env.now, tokens))
                self.spent += tokens
            admitted = self.env.now
            yield self.env.timeout(seconds)
        return Span(role, asked, admitted, self.env.now)

    def _fits(self, tokens: float) -> bool:
        while self.past and self.past[0][0] + WINDOW <= self.env.now:
            self.spent -= self.past.popleft()[1]
        return len(self.past) < self.requests and self.spent + tokens <= self.tokens


@dataclass(frozen=True, slots=True)
class Played:
    """One round: its seconds by cause, which add up to all of it, and bytes to the nodes and back."""

    seconds: dict[str, float]
    bytes_out: int
    bytes_in: int

    @property
    def total(self) -> float:
        """Seconds from one broadcast to the next."""
        return sum(self.seconds.values())


@dataclass(slots=True)
class Simulation:
    """Rounds of a run with the settings CONFIG on so many WORKERS; the same seed gives the same rounds.

    Args:
      dialogues: what a text's length is taken from, for the tokens of calls (`pamdp.train.estimate`).
      unlimited: servers let everything through at once.

    Raises:
      ConfigError: the run needs a model of this machine beside the policy, which nothing here simulates.
    """

    config: Config
    costs: Costs
    worker: WorkerCosts
    workers: int
    dialogues: Sequence[Dialogue]
    unlimited: bool = False
    seed: int = 0
    env: simpy.Environment = field(default_factory=simpy.Environment)
    roles: dict[str, RoleCost] = field(init=False)
    servers: dict[str, Server] = field(init=False)
    link: simpy.Resource = field(init=False)

    def __post_init__(self) -> None:
        online = self.config.online
        # Calls and tokens of each role as `pamdp estimate` counts them.
        self.roles = {role.role: role for role in estimate(self.config, self.dialogues)}
        here = [role.role for role in self.roles.values() if role.kind in HERE]
        if here or "judge" not in self.roles or "reference" not in self.roles or self.config.judge.both_orders:
            raise ConfigError(
                "only runs whose users, judge (in one order) and references are models on servers are simulated; "
                "see benchmarks/scale_run.toml"
            )
        self.link = simpy.Resource(self.env, 1)
        ends = {
            "simulator": online.simulator, "profiler": online.profiler, "judge": self.config.judge,
            "reference": online.writer,
        }  # fmt: skip
        made: dict[tuple[str, str], list[EndpointConfig]] = {}
        for role in self.roles:
            made.setdefault((ends[role].base_url, ends[role].model), []).append(ends[role])
        shared = {name: self._server(found) for name, found in made.items()}
        self.servers = {role: shared[ends[role].base_url, ends[role].model] for role in self.roles}

    def _server(self, ends: Sequence[EndpointConfig]) -> Server:
        """The loosest limits that any role of a server names, as `llm.stack` shares them."""
        if self.unlimited:
            return Server(self.env, math.inf, math.inf, math.inf)
        requests = max(end.requests_per_minute or math.inf for end in ends)
        tokens = max(end.tokens_per_minute or math.inf for end in ends)
        return Server(self.env, max(end.concurrency for end in ends), requests, tokens)

    def rounds(self, count: int) -> list[Played]:
        """COUNT rounds, one after the other: what the last minute held still counts in the next round."""
        found: list[Any] = [self.env.run(self.env.process(self._round(number))) for number in range(count)]
        return found

    def _round(self, number: int) -> Events:
        cluster, users, horizon = self.costs.cluster, self.config.online.users, self.config.rl.horizon
        start = self.env.now
        shares = [range(users)[i :: self.workers] for i in range(min(self.workers, users))]
        done = [self.env.process(self._shard(number, i, shard)) for i, shard in enumerate(shares)]
        yield simpy.AllOf(self.env, done)
        found: list[Any] = [process.value for process in done]
        seconds, _ = max(found, key=lambda each: each[1])
        learning = self.worker.learner_s + self.worker.learner_transition_s * users * horizon
        checking = self._check(number)
        yield self.env.timeout(learning + checking)
        seconds["learner"], seconds["form"] = learning, checking
        assert math.isclose(sum(seconds.values()), self.env.now - start, rel_tol=1e-6), "seconds nobody is to blame for"
        nodes = math.ceil(len(shares) / cluster.workers_per_node)
        return Played(seconds, nodes * self.worker.planner_bytes, users * horizon * self.worker.transition_bytes)

    def _shard(self, number: int, place: int, users: Sequence[int]) -> Events:
        """One worker's round: sent the planner, played (again, where the worker dies), taken back."""
        cluster = self.costs.cluster
        draw = random.Random(seed_of(self.seed, "worker", number, place))
        slow = math.exp(abs(draw.gauss(0, cluster.jitter)))  # nobody is faster than what was measured
        slow *= cluster.slow_factor if draw.random() < cluster.slow_share else 1
        first = place % cluster.workers_per_node == 0  # what one node was sent its workers share
        sync = yield from self._transfer(self.worker.planner_bytes if first else 0)
        lost, start = 0.0, self.env.now
        while True:
            seconds = dict.fromkeys(CAUSES, 0.0)
            player = self.env.process(self._play(number, users, slow, seconds))
            death = self.env.timeout(draw.expovariate(1 / (3600 * cluster.hours_between_failures)))
            yield player | death
            if player.processed:
                break
            player.interrupt()
            yield self.env.timeout(self.worker.load_s)
            lost += self.env.now - start
            start = self.env.now
        seconds["slow"] += lost
        sync += yield from self._transfer(len(users) * self.config.rl.horizon * self.worker.transition_bytes)
        seconds["sync"] = sync
        return seconds, self.env.now

    def _transfer(self, size: int) -> Events:
        """Some bytes over the driver's link, when its turn has come; gives the seconds that took."""
        start = self.env.now
        with self.link.request() as turn:
            yield turn
            yield self.env.timeout(self.costs.cluster.dispatch_s + size / self.costs.cluster.bytes_per_s)
        return self.env.now - start

    def _play(self, number: int, users: Sequence[int], slow: float, seconds: dict[str, float]) -> Events:
        """The loop of `rollout.collect`; SECONDS is what each cause took."""
        try:
            roles = ("simulator", "profiler") if self.config.online.opening == "own" else ("profiler",)
            asked = [self.env.process(self._chain(roles, self._lasts(number, user, -1))) for user in users]
            yield from self._wait(asked, seconds)
            groups, flights = min(self.config.online.groups, len(users)), deque[tuple[int, Sequence[int], list[Any]]]()
            for i in range(groups):
                flights.append((yield from self._submit(number, 0, users[i::groups], slow, seconds)))
            while flights:
                t, group, outcomes = flights.popleft()
                yield from self._wait(outcomes, seconds)
                if t + 1 < self.config.rl.horizon:
                    flights.append((yield from self._submit(number, t + 1, group, slow, seconds)))
                else:
                    yield from self._compute(self._read(t + 1, len(group)), slow, seconds)  # h_T, for its value
        except simpy.Interrupt:
            return

    def _submit(self, number: int, t: int, group: Sequence[int], slow: float, seconds: dict[str, float]) -> Events:
        """Replies of a group are written; what comes of them is asked for."""
        lengths = [self._length(number, user, t) for user in group]
        yield from self._compute(self._read(t, len(group)) + self.worker.writing(lengths), slow, seconds)
        return t, group, [self.env.process(self._outcome(number, user, t)) for user in group]

    def _compute(self, nominal: float, slow: float, seconds: dict[str, float]) -> Events:
        seconds["decode"] += nominal
        seconds["slow"] += (slow - 1) * nominal
        yield self.env.timeout(slow * nominal)

    def _wait(self, outcomes: Sequence[simpy.Process], seconds: dict[str, float]) -> Events:
        """Until all are there; the last one is to blame, for the part of each of its calls that was waited for."""
        start = self.env.now
        yield simpy.AllOf(self.env, outcomes)
        found: list[Any] = [outcome.value for outcome in outcomes]
        last: list[Span] = max(found, key=lambda spans: spans[-1].ended if spans else -1.0)
        for span in last:
            seconds[LIMITS[span.role]] += max(0.0, span.admitted - max(start, span.asked))
            seconds["calls"] += max(0.0, span.ended - max(start, span.admitted))

    def _outcome(self, number: int, user: int, t: int) -> Events:
        """The user answers and is described while the reply is judged; gives the spans of what took longer."""
        chains = [("simulator", "profiler"), ("reference", "judge")]
        lasts = self._lasts(number, user, t)
        both = [self.env.process(self._chain(chain, lasts)) for chain in chains]
        yield simpy.AllOf(self.env, both)
        found: list[Any] = [chain.value for chain in both]
        return max(found, key=lambda spans: spans[-1].ended)

    def _chain(self, roles: Sequence[str], lasts: Mapping[str, float]) -> Events:
        """Calls one after another, each as long as LASTS says; gives their spans."""
        spans: list[Span] = []
        for cost in (self.roles[role] for role in roles if role in self.roles):
            tokens = (cost.prompt_tokens + cost.completion_tokens) / cost.calls
            spans.append((yield from self.servers[cost.role].call(cost.role, lasts[cost.role], tokens)))
        return spans

    def _lasts(self, number: int, user: int, t: int) -> dict[str, float]:
        """Seconds of each role's call about one turn, the same whoever plays it, and when."""
        draw, calls = random.Random(seed_of(self.seed, "calls", number, user, t)), self.costs.calls
        return {
            role: calls.answering(cost.completion_tokens / cost.calls) * math.exp(draw.gauss(0, calls.spread))
            for role, cost in self.roles.items()
        }

    def _length(self, number: int, user: int, t: int) -> int:
        """Tokens of a reply: as long as one of the sample's, whoever writes it."""
        draw = random.Random(seed_of(self.seed, "reply", number, user, t))
        return min(draw.choice(self.costs.text.reply_tokens), self.config.rl.max_reply)

    def _read(self, t: int, dialogues: int) -> float:
        """Seconds for H(h_t) and H(h_t, ω_t) of some dialogues: only what is new, unless ω_t changed all of it."""
        text = self.costs.text
        reply = sum(text.reply_tokens) / len(text.reply_tokens)
        new = text.message_tokens + (reply if t else 0)
        whole = text.persona_tokens + text.message_tokens + t * (text.message_tokens + reply)
        known = new if t and self.config.rl.profile == "persona" else whole
        return self.worker.reading(dialogues * (new + self.config.model.depth * known))

    def _check(self, number: int) -> float:
        """Seconds of the check of form: replies to some states, on the driver (train/trust_region.py)."""
        text, states = self.costs.text, self.config.rl.form_states
        if not states:
            return 0.0
        reply = sum(text.reply_tokens) / len(text.reply_tokens)
        history = text.message_tokens + (self.config.rl.horizon - 1) / 2 * (text.message_tokens + reply)
        lengths = [self._length(number, -1 - state, 0) for state in range(states)]
        return self.worker.reading(states * history) + self.worker.writing(lengths)
