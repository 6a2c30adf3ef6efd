"""Doing what is missing: methods learn, talk with test users, and are graded; what is stored already is not done again.

Owns the order of the work; where a piece is kept, files.py says.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pamdp import checkpoint
from pamdp.errors import RunError
from pamdp.evaluation.online import grade, talk_with, with_references
from pamdp.evaluation.returns import Step
from pamdp.evaluation.transcripts import read_talks, write_talks
from pamdp.files import json_line, read_json_lines, write_atomic, write_json
from pamdp.journal import Journal
from pamdp.judges.base import Judge
from pamdp.models.backbone import Backbone
from pamdp.models.policy import Policy
from pamdp.progress import Progress
from pamdp.prompts.render import load
from pamdp.reproduce.online.config import ADVANTAGES, OnlineReproduceConfig
from pamdp.reproduce.online.files import graded_file, journal_file, run_folder, talks_file
from pamdp.reproduce.online.pretrained import keep_given
from pamdp.runs import Run
from pamdp.seeds import seed_of
from pamdp.train.env_factory import EnvFactory, may_change
from pamdp.train.factory import Split
from pamdp.train.online import online
from pamdp.workflows import fingerprint_of

_STEPS = TypeAdapter(list[Step])


@dataclass(frozen=True, slots=True)
class Bench:
    """What the work is done with.

    Attributes:
      config: settings.
      path: the run directory.
      bare: the backbone of Vanilla and Prompt.
      cloned: the cloned policy that all methods learn from; it is not changed.
      split: users that teach and users that evaluate.
      world: the world that evaluates.
      say: told what is done next.
    """

    config: OnlineReproduceConfig
    path: Path
    bare: Backbone
    cloned: Policy
    split: Split
    world: EnvFactory
    say: Callable[[str], None]

    @property
    def judges(self) -> tuple[Judge, ...]:
        """Who grades: the judge that rewards, then the second opinion."""
        assert self.world.second is not None
        return self.world.judge, self.world.second

    def save_costs(self) -> None:
        """Store what the calls of the evaluation cost so far."""
        write_json(self.path / "costs.json", self.world.ledger.to_json())


def work(bench: Bench, methods: Sequence[str]) -> None:
    """Train, play and grade what is missing of METHODS.

    Raises:
      EndpointError: a model cannot be reached; what is done is saved.
    """
    costs = bench.path / "costs.json"
    if costs.is_file():
        bench.world.ledger.load(json.loads(costs.read_text(encoding="utf-8")))
    write_json(bench.path / "users.json", _users(bench.split))
    try:
        for seed in bench.config.seeds:
            for method in methods:
                if not talks_file(bench.path, method, seed).is_file():
                    _play(bench, method, seed)
        for judge in bench.judges:
            for seed in bench.config.seeds:
                for method in methods:
                    if not graded_file(bench.path, judge.name, method, seed).is_file():
                        _grade(bench, judge, method, seed)
    finally:
        bench.save_costs()


def read_steps(config: OnlineReproduceConfig, path: Path, judges: Sequence[str]) -> list[Step]:
    """All rewards of a run.

    Raises:
      RunError: something is missing or damaged; the message names the file.
    """
    out = []
    for judge in judges:
        for method in config.methods:
            for seed in config.seeds:
                file = graded_file(path, judge, method, seed)
                if not file.is_file():
                    raise RunError(f"no rewards in {file}; run the same command without --render")
                try:
                    out += _STEPS.validate_python(read_json_lines(file))
                except ValidationError as error:
                    raise RunError(f"{file}: a line is no reward; delete the file to have it graded again") from error
    return out


def _play(bench: Bench, method: str, seed: int) -> None:
    policy, file = _policy(bench, method, seed), talks_file(bench.path, method, seed)
    bench.say(f"seed {seed}: {method} talks with {len(bench.split.test)} users")
    world = replace(bench.world, config=bench.config.of_evaluation(seed))
    total = len(bench.split.test) * bench.config.rl.horizon
    stored = Journal(journal_file(bench.path, method, seed), bench.save_costs)
    with stored as journal, Progress(method, total, len(journal.turns)) as bar:
        talks = talk_with(
            policy, bench.split.test, world, seed=seed_of("evaluate", seed), journal=journal, progress=bar.advance
        )
    assert world.writer is not None
    write_talks(file, with_references(talks, world.writer, bench.save_costs))
    journal.delete()


def _grade(bench: Bench, judge: Judge, method: str, seed: int) -> None:
    bench.say(f"seed {seed}: {judge.name} grades {method}")
    talks = read_talks(talks_file(bench.path, method, seed))
    rewards = grade(talks, judge, bench.config.rl.soft, bench.save_costs)
    lines = [
        json_line(
            {
                "method": method, "judge": judge.name, "user_id": talk.user_id, "dialogue_id": talk.dialogue_id,
                "seed": seed, "turn": t, "reward": reward,
            }
        )
        for talk, row in zip(talks, rewards, strict=True)
        for t, reward in enumerate(row)
    ]  # fmt: skip
    file = graded_file(bench.path, judge.name, method, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, "".join(lines))


def _policy(bench: Bench, method: str, seed: int) -> Policy:
    """The policy of a method: as it is, trained before, or trained now."""
    if method in ("Vanilla", "Prompt"):
        return Policy(bench.bare, system=load("assistant" if method == "Vanilla" else "assistant_infer"))
    # A planner of its own: learning changes it.
    policy = replace(bench.cloned, planner=copy.deepcopy(bench.cloned.planner))
    if method not in ADVANTAGES:
        return policy
    assert policy.planner is not None
    given = bench.config.given(method, seed)
    trained = (given or run_folder(bench.path, method, seed)) / "trained"
    keep_given(bench.path, method, seed, given)
    if given is None and not trained.is_dir():
        _train(bench, policy, method, seed)
    policy.planner.load_state_dict(checkpoint.load_tensors(trained / "planner.safetensors"))
    return policy


def _train(bench: Bench, policy: Policy, method: str, seed: int) -> None:
    bench.say(f"seed {seed}: {method} learns from {len(bench.split.train)} users")
    config = bench.config.of_run(seed, method)
    folder = run_folder(bench.path, method, seed)
    world = replace(bench.world, config=config)
    if config.online.reference != "written":
        world = replace(world, writer=None)
    judges = world.fingerprints(bench.split.train)
    print_ = fingerprint_of(bench.split, policy.backbone).model_copy(update={"judges": judges})
    run = Run.resume(folder, config, print_, may_change()) if folder.exists() else Run.create(folder, config, print_)
    # What learning costs is written into the method's run, and nowhere twice.
    so_far = world.ledger.to_json()
    world.ledger.entries.clear()
    try:
        with run:
            online(policy, bench.split.train, world, config, run, bench.bare)
    finally:
        world.ledger.entries.clear()
        world.ledger.load(so_far)


def _users(split: Split) -> dict[str, list[str]]:
    return {name: sorted({d.user_id for d in part}) for name, part in (("train", split.train), ("test", split.test))}
