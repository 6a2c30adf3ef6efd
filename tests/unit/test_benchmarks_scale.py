"""Simulated scaling against closed forms: one worker, many, limits that bind, slow and dying workers."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("simpy", reason="the simulation of scale needs simpy: pip install 'pamdp[scale]'")

import simpy

from benchmarks.scale import RUN, cost_table, growth_table, seconds_by_cause
from benchmarks.scale_costs import (
    CONSTANTS,
    CallCosts,
    ClusterCosts,
    Costs,
    TextCosts,
    WorkerCosts,
    read_costs,
    sources,
)
from benchmarks.scale_simulation import CAUSES, Server, Simulation
from pamdp.config import Config
from pamdp.data import load_sample
from pamdp.errors import ConfigError
from pamdp.llm.limits import Limits
from pamdp.settings import load
from pamdp.train.estimate import estimate
from tests.tools.virtual_time import play

DIALOGUES = load_sample("train").dialogues
T, REPLY, CALL, LEARNING = 6, 5.0, 2.0, 3.0
"""Turns, and seconds of a reply, a call and an update, where nothing else takes time."""
PLAIN = ("rl.form_states=0", "rl.profile=persona", "online.groups=1")
FREE = {"concurrency": 1000, "requests_per_minute": "none", "tokens_per_minute": "none"}


def _costs(worker: dict[str, float] | None = None, **cluster: float) -> Costs:
    """Replies of ten tokens at half a second each; the user takes one call, reference and judge two."""
    fixed = {
        "step_s": 0, "row_s": REPLY / 10, "prefill_s": 0, "load_s": 7, "planner_bytes": 0, "transition_bytes": 0,
        "learner_s": LEARNING, "learner_transition_s": 0,
    } | (worker or {})  # fmt: skip
    still = {
        "workers_per_node": 8, "bytes_per_s": 1.0, "dispatch_s": 0, "slow_share": 0, "slow_factor": 1, "jitter": 0,
        "hours_between_failures": 1e12,
    } | cluster  # fmt: skip
    made = WorkerCosts.model_validate(fixed)
    return Costs(
        cluster=ClusterCosts.model_validate(still), calls=CallCosts(first_s=CALL, token_s=0, spread=0),
        text=TextCosts(reply_tokens=(10,), message_tokens=1, persona_tokens=1),
        small_cpu=made, small_gpu=made, eager_7b=made, graph_7b=made,
    )  # fmt: skip


def _simulation(costs: Costs, workers: int, users: int, *run: str, unlimited: bool = True, seed: int = 0) -> Simulation:
    config = load(Config, ["paper", str(RUN)], [*PLAIN, f"online.users={users}", *run])
    return Simulation(config, costs, costs.eager_7b, workers, DIALOGUES, unlimited, seed)


def _limited(**limits: object) -> list[str]:
    """The same limits for both roles of the judge's server, none for the others."""
    ends = {"judge": FREE | limits, "online.writer": FREE | limits, "online.simulator": FREE, "online.profiler": FREE}
    return [f"{end}.{name}={value}" for end, values in ends.items() for name, value in values.items()]


def test_one_worker_takes_the_sum() -> None:
    (played,) = _simulation(_costs(), 1, 4).rounds(1)
    assert played.seconds == dict.fromkeys(CAUSES, 0.0) | {
        "decode": T * 4 * REPLY, "calls": T * 2 * CALL, "learner": LEARNING,
    }  # fmt: skip


@pytest.mark.parametrize(("workers", "users"), [(1, 10), (3, 10), (4, 10), (10, 10), (16, 10)])
def test_many_workers_take_as_long_as_the_largest_share(workers: int, users: int) -> None:
    (played,) = _simulation(_costs(), workers, users).rounds(1)
    assert played.total == pytest.approx(T * (math.ceil(users / workers) * REPLY + 2 * CALL) + LEARNING)


def test_one_group_writes_while_the_other_waits() -> None:
    """Two groups of one user each: a reply of 5 s hides the 4 s that the other one's calls take, but for the last."""
    (played,) = _simulation(_costs(), 1, 2, "online.groups=2").rounds(1)
    assert played.total == pytest.approx(T * 2 * REPLY + 2 * CALL + LEARNING)


def test_profiles_are_inferred_of_every_history_from_the_first_to_the_last() -> None:
    simulation = _simulation(_costs(), 1, 1, "rl.profile=inferred", unlimited=False)
    (played,) = simulation.rounds(1)
    assert played.seconds["calls"] == pytest.approx(CALL + T * 2 * CALL)
    assert len(simulation.servers["profiler"].past) == T + (T + 1)  # of all calls, those of the last minute or two


@pytest.mark.parametrize("rate", [10, 24])
def test_a_judge_that_binds_takes_its_calls_by_its_rate(rate: int) -> None:
    """60 replies, a reference and a verdict each: 120 calls, RATE a minute, and the last one's answer."""
    run = ["rl.horizon=1", *_limited(requests_per_minute=rate)]
    (played,) = _simulation(_costs({"row_s": 0}), 1, 60, *run, unlimited=False).rounds(1)
    assert played.total == pytest.approx(60 * (120 / rate - 1) + CALL + LEARNING, abs=0.1)
    assert max(played.seconds, key=lambda cause: played.seconds[cause]) == "judge"


def test_calls_at_once_bind_as_well() -> None:
    run = ["rl.horizon=1", *_limited(concurrency=4)]
    (played,) = _simulation(_costs({"row_s": 0}), 1, 60, *run, unlimited=False).rounds(1)
    assert played.total == pytest.approx(120 / 4 * CALL + LEARNING)


@pytest.mark.parametrize("limits", [(3, math.inf, math.inf), (50, 7, math.inf), (50, math.inf, 90.0), (4, 9, 120.0)])
def test_calls_are_let_through_when_the_packages_own_limits_would(limits: tuple[float, float, float]) -> None:
    draw = random.Random(0)
    calls = [(draw.uniform(0, 90), draw.uniform(1, 8), draw.uniform(5, 30)) for _ in range(40)]  # asked, lasts, tokens

    async def real() -> list[float]:
        shared, began = Limits(int(limits[0]), *limits[1:]), [0.0] * len(calls)

        async def one(i: int) -> None:
            asked, lasts, tokens = calls[i]
            await asyncio.sleep(asked)
            async with shared.admitted(tokens):
                began[i] = asyncio.get_running_loop().time()
                await asyncio.sleep(lasts)

        start = asyncio.get_running_loop().time()
        await asyncio.gather(*map(one, range(len(calls))))
        return [time - start for time in began]

    env = simpy.Environment()
    server = Server(env, *limits)

    def one(asked: float, lasts: float, tokens: float) -> Any:
        yield env.timeout(asked)
        return (yield from server.call("judge", lasts, tokens))

    processes = [env.process(one(*call)) for call in calls]
    env.run()
    found: list[Any] = [process.value for process in processes]
    assert [span.admitted for span in found] == pytest.approx(play(real())[0], abs=0.05)


def test_slow_workers_are_to_blame_for_what_they_take_longer() -> None:
    (played,) = _simulation(_costs(slow_share=1, slow_factor=2), 1, 4).rounds(1)
    assert played.seconds["slow"] == played.seconds["decode"] == T * 4 * REPLY


def test_a_worker_that_dies_plays_its_dialogues_again_and_no_more() -> None:
    whole = T * (4 * REPLY + 2 * CALL)
    rounds = _simulation(_costs(hours_between_failures=whole / 3600), 1, 4).rounds(20)
    died = [played for played in rounds if played.seconds["slow"]]
    assert 0 < len(died) < 20
    assert all(
        played.seconds["slow"] >= 7 and played.seconds["decode"] == T * 4 * REPLY for played in rounds if played in died
    )


def test_bytes_go_once_to_each_node_and_take_turns_on_the_link() -> None:
    sizes = {"planner_bytes": 30, "transition_bytes": 2}
    (played,) = _simulation(_costs(sizes, bytes_per_s=10, dispatch_s=0.5), 9, 9).rounds(1)
    assert (played.bytes_out, played.bytes_in) == (2 * 30, 9 * T * 2)
    # The first one begins after 3.5 s; nine returns of 1.7 s take longer than the workers are apart, and queue.
    assert played.seconds["sync"] == pytest.approx(3 + 0.5 + 9 * (0.5 + T * 2 / 10))
    assert played.total == pytest.approx(played.seconds["sync"] + T * (REPLY + 2 * CALL) + LEARNING)


def test_tokens_are_those_of_the_estimate() -> None:
    simulation = _simulation(_costs(), 3, 5, "rl.profile=inferred", "online.rounds=2")
    simulation.rounds(2)
    asked = {name: 0.0 for name in simulation.roles}
    for role in estimate(simulation.config, DIALOGUES):
        asked[role.role] = role.prompt_tokens + role.completion_tokens
    judge, users = (simulation.servers[role].tokens_asked for role in ("judge", "simulator"))
    assert judge == pytest.approx(asked["judge"] + asked["reference"])
    assert users == pytest.approx(asked["simulator"] + asked["profiler"])


def test_all_seconds_have_a_cause_and_a_seed_has_one_outcome() -> None:
    sizes = {"step_s": 0.1, "prefill_s": 0.01, "planner_bytes": 50, "transition_bytes": 9, "learner_transition_s": 0.01}
    costs = _costs(sizes, bytes_per_s=100, jitter=0.2, slow_share=0.3, slow_factor=2, hours_between_failures=0.1)
    costs = costs.model_copy(update={"calls": CallCosts(first_s=1, token_s=0.01, spread=0.5)})
    run = ["rl.profile=inferred", "rl.form_states=4", "online.groups=2", *_limited(requests_per_minute=30)]

    def rounds(seed: int) -> tuple[list[dict[str, float]], float]:
        simulation = _simulation(costs, 3, 11, *run, unlimited=False, seed=seed)
        played = simulation.rounds(3)
        return [each.seconds for each in played], simulation.env.now

    found, now = rounds(0)
    assert sum(sum(seconds.values()) for seconds in found) == pytest.approx(now)
    assert rounds(0) == (found, now) and rounds(1)[0] != found
    assert all(seconds[cause] > 0 for seconds in found for cause in CAUSES if cause not in ("judge", "users"))


def test_decoding_and_reading_by_hand() -> None:
    worker = _costs({"step_s": 2, "row_s": 0.5, "prefill_s": 0.1}).eager_7b
    assert worker.writing([3, 5, 2], rows=2) == 5 * 2 + 10 * 0.5  # the third begins where the first ends
    assert worker.writing([3, 5, 2], rows=1) == 10 * 2 + 10 * 0.5
    assert worker.reading(600) == 2 * 2 + 600 * 0.1 and worker.reading(0) == 0


def test_every_constant_has_a_source(tmp_path: Path) -> None:
    measured = tmp_path / "costs.toml"
    learner = "planner_bytes = 1 # m\ntransition_bytes = 1 # m\nlearner_s = 1 # m\nlearner_transition_s = 1 # m\n"
    measured.write_text(
        "[text]\nreply_tokens = [1, 2] # m\nmessage_tokens = 1 # m\npersona_tokens = 1 # m\n"
        f"[small_cpu]\nstep_s = 1 # m\nrow_s = 1 # m\nprefill_s = 1 # m\nload_s = 1 # m\n{learner}"
        + "".join(f"[{part}]\n{learner}" for part in ("small_gpu", "eager_7b", "graph_7b"))
    )
    given = ["calls.first_s=9"]
    costs, found = read_costs(measured, given), {name: source for name, _, source in sources(measured, given)}
    assert {f"{part}.{name}" for part, values in costs.model_dump().items() for name in values} == set(found)
    assert all(found.values()) and found["calls.first_s"] == "given" and costs.calls.first_s == 9
    with pytest.raises(ConfigError, match=r"calls.first"):
        read_costs(measured, ["calls.first=9"])
    assert CONSTANTS.name == "scale.toml"


def test_only_runs_whose_models_are_on_servers_are_simulated() -> None:
    with pytest.raises(ConfigError, match="on servers"):
        Simulation(Config(), _costs(), _costs().eager_7b, 1, DIALOGUES)


def test_tables_by_hand() -> None:
    (one,), (four,) = (_simulation(_costs(), n, 4).rounds(1) for n in (1, 4))
    table = growth_table([(n, seconds_by_cause([played]), played) for n, played in ((1, one), (4, four))], None)
    last = [cell.strip() for cell in table.splitlines()[-1].split("|")[1:-1]]
    # 147 s against 6 (5 + 4) + 3 = 57 s
    assert last == ["4", "57", "2.6", "0.64", "53", "42", "0", "0", "0", "5", "0", "0", "0", "0"]
    shared = growth_table(
        [(n, seconds_by_cause([one]), one) for n in (1, 4)], 4
    )  # four times the users in the same time
    assert [cell.strip() for cell in shared.splitlines()[-1].split("|")[1:5]] == ["4", "147", "4.0", "1.00"]
    config = load(Config, ["paper", str(RUN)], [*PLAIN, "online.users=2", "online.rounds=2"])
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]]
        for row in cost_table(config, _costs(), DIALOGUES, 0).splitlines()
    ]
    # one GPU: 7 s to load, twice 6 (10 + 4) + 3 s
    assert rows[2][:5] == ["small_gpu", "1", "none", f"{(7 + 2 * 87) / 60:.1f}", f"{(7 + 2 * 87) / 3600:.2f}"]
