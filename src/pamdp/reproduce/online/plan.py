"""What the online comparison would cost: replies, calls of every role and verdicts, before anything is called.

Owns the arithmetic. Loads no model. Where data are missing, the paper's numbers of users stand in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.table import Table as Grid

from pamdp.errors import DataError
from pamdp.reproduce.online.config import ADVANTAGES, OnlineReproduceConfig
from pamdp.settings import flatten
from pamdp.train.estimate import RoleCost, estimate
from pamdp.train.users import load_users
from pamdp.types import Dialogue, Persona, Turn


@dataclass(frozen=True, slots=True)
class Part:
    """What one method does in all seeds, learning or evaluated: replies it writes, and calls of a role beside them."""

    method: str
    stage: str
    replies: int
    roles: list[RoleCost]

    @property
    def calls(self) -> dict[str, int]:
        """Calls by role."""
        return {row.role: row.calls for row in self.roles}


@dataclass(frozen=True, slots=True)
class OnlinePlan:
    """All parts, what the numbers rest on, and the settings."""

    target: str
    parts: list[Part]
    data: str
    settings: dict[str, object]

    def to_json(self) -> str:
        """One JSON document."""
        known = [row.money for part in self.parts for row in part.roles]
        total = {
            "replies": sum(part.replies for part in self.parts),
            "calls": sum(row.calls for part in self.parts for row in part.roles),
            "money": None if None in known else sum(x for x in known if x is not None),
        }
        return json.dumps({**asdict(self), "totals": total}, ensure_ascii=False, default=str)

    def grid(self) -> Grid:
        """For a terminal."""
        roles = list(dict.fromkeys(role for part in self.parts for role in part.calls))
        grid = Grid(title=f"{self.target}: what it would cost", title_justify="left")
        for i, name in enumerate(("method", "stage", "replies", *roles)):
            grid.add_column(name, justify="left" if i < 2 else "right")
        for part in self.parts:
            grid.add_row(part.method, part.stage, f"{part.replies:,}", *(f"{part.calls.get(r, 0):,}" for r in roles))
        return grid


def plan_online(config: OnlineReproduceConfig, target: str, methods: Sequence[str]) -> OnlinePlan:
    """The plan of a comparison; judges that come with the package are no calls."""
    train, test, data = _users(config)
    seeds, parts = len(config.seeds), list[Part]()
    for method in methods:
        run = config.of_run(config.seeds[0], method)
        if method in ADVANTAGES and method not in config.trained:
            played = min(run.online.users, len(train)) * run.online.rounds * run.rl.horizon * seeds
            parts.append(Part(method, "learns", played, [_times(row, seeds) for row in estimate(run, train)]))
        world = config.of_evaluation(config.seeds[0])
        once = world.model_copy(update={"online": world.online.model_copy(update={"rounds": 1, "users": len(test)})})
        rows = [_times(row, seeds) for row in estimate(once, test)]
        if config.second.kind != "embedded":
            second = once.model_copy(update={"online": once.online.model_copy(update={"judge": config.second})})
            rows += [_times(row, seeds) for row in estimate(second, test) if row.role == "judge"]
        parts.append(Part(method, "is evaluated", len(test) * run.rl.horizon * seeds, rows))
    if target == "simulator":
        parts.append(_audit(config, test))
    return OnlinePlan(target, parts, data, flatten(config))


def _audit(config: OnlineReproduceConfig, test: Sequence[Dialogue]) -> Part:
    """A simulated message at every turn of the records; where language models audit, three questions about each."""
    places = sum(len(d.turns) - 1 for d in test)
    world = config.of_evaluation(config.seeds[0])
    once = world.model_copy(update={"online": world.online.model_copy(update={"rounds": 1, "users": len(test)})})
    calls = {"simulator": places}
    if config.auditor == "judge":
        calls["judge"] = 3 * places
    if "profiler" in config.recognisers:
        calls["profiler"] = places + len(test) * (config.rl.horizon + 2)
    found = {row.role: row for row in estimate(once, test)}
    return Part("the audit", "compares", 0, [_scaled(found[role], n) for role, n in calls.items()])


def _scaled(row: RoleCost, calls: int) -> RoleCost:
    """As many calls as asked for, each as long as those of ROW."""
    share = calls / max(row.calls, 1)
    money = None if row.money is None else row.money * share
    counts = (calls, round(row.prompt_tokens * share), round(row.completion_tokens * share))
    return RoleCost(row.role, row.model, row.kind, *counts, money)


def _times(row: RoleCost, seeds: int) -> RoleCost:
    return _scaled(row, row.calls * seeds)


def _users(config: OnlineReproduceConfig) -> tuple[Sequence[Dialogue], Sequence[Dialogue], str]:
    try:
        split = load_users(config.of_run(config.seeds[0]), config.train_users, config.test_users)
    except DataError as error:
        stand_in = Dialogue("d", "u", Persona("x" * 400, "x" * 300), (Turn("x" * 200, preferred="x" * 300),) * 8)
        train, test = config.train_users or 256, config.test_users or 128
        return [stand_in] * train, [stand_in] * test, f"{train} users to learn from and {test} to test assumed: {error}"
    return split.train, split.test, f"{len(split.train)} users to learn from and {len(split.test)} to test"
