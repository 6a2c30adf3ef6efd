"""Rollouts at two workers of one thread each against one process of two: `python -m benchmarks.workers`.

Replies to every state of some dialogues under the shipped policy, actions drawn, nothing judged. Beside it: what a
round costs at the workers where nothing is done in it (planner sent, items given, results fetched), and memory. Wall
time says little on a machine that does other things, so that processors' seconds stand beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from benchmarks import inputs
from benchmarks.arena import Options
from benchmarks.measure import STATUS
from pamdp.config import RLConfig
from pamdp.launch import Launcher, Local, Tell
from pamdp.launcher_config import LauncherConfig
from pamdp.llm.ledger import Ledger
from pamdp.llm.limits import Limiter
from pamdp.models.embedded import load_backbone
from pamdp.models.policy import Policy
from pamdp.ray_launcher import RayLauncher
from pamdp.shards import blocks
from pamdp.train.factory import load_policy, shipped
from pamdp.train.offline import rollout_recorded
from pamdp.train.site import Author, Site, named
from pamdp.types import Dialogue

Shared = tuple[Policy | Author, RLConfig]
Rolled = tuple[list[str], float]


def make_site(limiter: Limiter) -> Site:
    """The shipped policy on the embedded model."""
    return Site(load_policy(shipped(), load_backbone(device="cpu")), None, Ledger())


def roll(site: Site, shared: Shared, some: Sequence[Dialogue], tell: Tell) -> Rolled:
    """Replies to some dialogues, and the seconds of processors that they took."""
    began = time.process_time()
    found = rollout_recorded(site.policy_of(shared[0]), some, shared[1], seed=1)
    return [t.reply for rollout in found for t in rollout.transitions], time.process_time() - began


def nothing(site: Site, shared: Shared, some: None, tell: Tell) -> tuple[int, float]:
    """The process, and its resident memory in MB."""
    return os.getpid(), _resident()


def _resident() -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _timed(work: Callable[[], list[Rolled]]) -> dict[str, object]:
    began = time.perf_counter()
    found = work()
    wall = time.perf_counter() - began
    replies = [reply for said, _ in found for reply in said]
    return {"wall": round(wall, 2), "cpu": round(sum(cpu for _, cpu in found), 2), "replies": replies}


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20, help="Empty rounds that are timed.")
    given = parser.parse_args()
    chosen = inputs.dialogues(Options(given.users, given.turns, given.tokens, given.users, 1))
    rl = RLConfig(samples=1, max_reply=given.tokens, dialogues=max(1, given.users // 2))
    parts: list[Callable[[], Sequence[Dialogue]]] = [partial(list, part) for part in blocks(chosen, 2, rl.dialogues)]

    def work(launcher: Launcher[Site], policy: Policy) -> list[Rolled]:
        return launcher.map(roll, (named(policy, launcher), rl), parts)

    torch.set_num_threads(2)
    here: Launcher[Site] = Local(site := make_site(Limiter()))
    roll(site, (site.policy, rl), chosen[:1], print)  # warm
    one, alone = _timed(partial(work, here, site.policy)), _resident()
    with RayLauncher(LauncherConfig(kind="ray"), make_site) as ray:
        shared = named(site.policy, ray), rl
        ray.map(roll, shared, [partial(list, chosen[:1])] * 2)  # loaded and warm
        two = _timed(partial(work, ray, site.policy))
        began = time.perf_counter()
        for _ in range(given.rounds):
            there = ray.map(nothing, shared, [lambda: None] * 2)
        empty = (time.perf_counter() - began) / given.rounds
    said = [result.pop("replies") for result in (one, two)]
    print(json.dumps({
        "states": sum(len(d.turns) for d in chosen), "one process, two threads": one, "two workers, one thread": two,
        "same replies": said[0] == said[1], "empty round, seconds": round(empty, 4),
        "resident MB": {"one process": round(alone), "workers": [round(mb) for _, mb in there]},
        "load": os.getloadavg()[0], "planner bytes": sum(
            x.numel() * x.element_size() for x in site.policy.trained_planner.state_dict().values()
        ),
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
