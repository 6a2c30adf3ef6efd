"""The online comparison: methods learn by talking with simulated users, talk with others, and are graded.

Owns its pieces, and what must not change under a run. One run directory serves Table 3, Figure 4 and the audit. Knows
nothing of how results are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from pamdp.config import PLACE
from pamdp.evaluation.online import grade, talk_with, with_references
from pamdp.evaluation.returns import Step
from pamdp.evaluation.transcripts import Transcript
from pamdp.files import write_json
from pamdp.journal import Journal
from pamdp.judges.base import Judge, in_role
from pamdp.judges.graders import require_fitting
from pamdp.launch import Launcher, Local, Tell
from pamdp.models.backbone import Backbone
from pamdp.models.embedded import load_backbone
from pamdp.models.policy import Policy
from pamdp.progress import Progress
from pamdp.prompts.render import load
from pamdp.ray_launcher import RayLauncher
from pamdp.reproduce.audit import audit_pieces, require_audience
from pamdp.reproduce.config import OnlineReproduceConfig, learns
from pamdp.reproduce.store import AGAIN, read_json, run_folder, said_file, verdict_file
from pamdp.reproduce.tables import VANILLA, Table
from pamdp.reproduce.trained import PLANNER, copy_run, runs_to_copy
from pamdp.reproduce.work import Piece, hold
from pamdp.seeds import seed_of
from pamdp.shards import blocks
from pamdp.stored import read_records, write_records
from pamdp.train.env_factory import EnvFactory, make_env_factory, may_change
from pamdp.train.factory import Split, with_planner
from pamdp.train.init_from import load_start, policy_folder
from pamdp.train.online import online
from pamdp.train.policy_metadata import read_metadata, require_unseen
from pamdp.train.site import Site
from pamdp.train.users import load_users
from pamdp.workflows import backbones, fingerprint_of

MAY_CHANGE = ("methods", "seeds", "resamples", "trained", *may_change(["second"]))
"""Settings that a run may go on with when they are others: what is stored stays right."""


def split_online(config: OnlineReproduceConfig) -> Split:
    """Users that teach and users that evaluate."""
    return load_users(config.of_run(config.seeds[0]), config.train_users, config.test_users)


def methods_of(config: OnlineReproduceConfig, table: Table) -> tuple[str, ...]:
    """The methods that a page needs: the audit looks at the users of Vanilla's dialogues."""
    return (VANILLA,) if table.name == "simulator" else config.methods


@dataclass(frozen=True, slots=True)
class Online:
    """The work of a page, for `do_missing`, in the run directory PATH.

    Attributes:
      bare: the backbone of Vanilla and Prompt.
      cloned: the cloned policy that all methods learn from; it is not changed.
      world: the world that evaluates.
      launcher: who plays and grades; None: this process.
    """

    config: OnlineReproduceConfig
    table: Table
    path: Path
    bare: Backbone
    cloned: Policy
    split: Split
    world: EnvFactory
    say: Callable[[str], None]
    launcher: Launcher[Site] | None = None

    @property
    def judges(self) -> dict[str, Judge]:
        """Who grades: the judge that rewards, then the second opinion."""
        assert self.world.second is not None
        return {self.config.judge.model: self.world.judge, self.config.second.model: self.world.second}

    @contextmanager
    def open(self) -> Iterator[None]:
        """Find what cannot be done before anything is called; what calls cost is stored however the work ends."""
        config, path, world = self.config, self.path, self.world
        if self.table.name == "simulator":
            require_audience(config, self.split.test)
        copies = runs_to_copy(config, path, methods_of(config, self.table), self.split, self.cloned, world)
        fingerprint = fingerprint_of(self.split, self.bare).model_copy(update={"judges": self._judges()})
        with hold(path, config, fingerprint, MAY_CHANGE) as run:
            for source, own in copies.items():
                copy_run(source, own)
            world.ledger.load(read_json(path / "costs.json"))
            parts = {"train": self.split.train, "test": self.split.test}
            write_json(path / "users.json", {name: sorted({d.user_id for d in part}) for name, part in parts.items()})
            try:
                yield
            finally:
                self._paid()
                run.note_refused(self._judges())

    def _judges(self) -> tuple[dict[str, str], ...]:
        second = in_role(self.judges[self.config.second.model], "evaluation")
        return (*self.world.fingerprints(self.split.test), second)

    def stages(self) -> Iterator[list[Piece]]:
        """Learning and dialogues, rewards by each judge, the audit."""
        config, path, methods = self.config, self.path, methods_of(self.config, self.table)
        yield [piece for seed in config.seeds for name in methods for piece in self._talking(name, seed)]
        yield [
            Piece(
                verdict_file(path, "graded", judge, (name,), seed), f"seed {seed}: {judge} grades {name}",
                partial(self._grade, judge, name, seed),
            )
            for judge in self.judges
            for seed in config.seeds
            for name in methods
        ]  # fmt: skip
        if self.table.name == "simulator":
            world = replace(self.world, config=config.of_evaluation(config.seeds[0]))
            yield audit_pieces(config, path, self.split.test, world, self.bare, self._paid)

    def _talking(self, method: str, seed: int) -> Iterator[Piece]:
        talks, learned = said_file(self.path, method, seed), run_folder(self.path, method, seed) / PLANNER
        train, test = len(self.split.train), len(self.split.test)
        if learns(method) and not talks.is_file():
            title = f"seed {seed}: {method} learns from {train} users"
            yield Piece(learned, title, partial(self._learn, method, seed))
        yield Piece(talks, f"seed {seed}: {method} talks with {test} users", partial(self._play, method, seed))

    def _paid(self) -> None:
        """Store what the calls of the evaluation cost so far."""
        write_json(self.path / "costs.json", self.world.ledger.to_json())

    def _policy(self, method: str, seed: int) -> Policy:
        """The policy of a method: as it is, or as it has learned."""
        if method in ("Vanilla", "Prompt"):
            return Policy(self.bare, system=load("assistant" if method == "Vanilla" else "assistant_infer"))
        if learns(method):
            return with_planner(self.cloned, run_folder(self.path, method, seed) / PLANNER)
        return self.cloned

    def _learn(self, method: str, seed: int) -> None:
        config, train, policy = self.config.of_run(seed, method), self.split.train, self.cloned
        world = replace(self.world, config=config)
        if config.online.reference != "written":
            world = replace(world, writer=None)
        judges = world.fingerprints(train)
        fingerprint = fingerprint_of(self.split, policy.backbone).model_copy(update={"judges": judges})
        # What learning costs is written into the method's run, and nowhere twice.
        so_far = world.ledger.to_json()
        world.ledger.entries.clear()
        try:
            with hold(run_folder(self.path, method, seed), config, fingerprint, may_change()) as run:
                online(policy, train, world, config, run, self.bare, self.launcher)
        finally:
            world.ledger.entries.clear()
            world.ledger.load(so_far)

    def _play(self, method: str, seed: int) -> None:
        test, file, policy = self.split.test, said_file(self.path, method, seed), self._policy(method, seed)
        world = replace(self.world, config=self.config.of_evaluation(seed))
        stored = Journal(file.with_suffix(".journal.jsonl"), self._paid)
        with stored as journal, Progress(method, len(test) * self.config.rl.horizon, len(journal.turns)) as bar:
            draws = seed_of("evaluate", seed)
            talks = talk_with(
                policy, test, world, seed=draws, journal=journal, progress=bar.advance, launcher=self.launcher
            )
        here = self.launcher or Local(Site(self.cloned, self.bare, world.ledger, world))
        write_records(file, [talk for part in here.map(_refer, None, self._parts(talks), self._heard) for talk in part])
        journal.delete()

    def _grade(self, judge: str, method: str, seed: int) -> None:
        talks = read_records(said_file(self.path, method, seed), Transcript, AGAIN)
        here = self.launcher or Local(Site(self.cloned, self.bare, self.world.ledger, self.world, self.judges))
        graded = here.map(_graded, (judge, self.config.rl.soft), self._parts(talks), self._heard)
        rewards = [row for part in graded for row in part]
        steps = [
            Step(method, judge, talk.user_id, talk.dialogue_id, seed, t, reward)
            for talk, row in zip(talks, rewards, strict=True)
            for t, reward in enumerate(row)
        ]
        write_records(verdict_file(self.path, "graded", judge, (method,), seed), steps)

    def _parts(self, talks: Sequence[Transcript]) -> list[Callable[[], Sequence[Transcript]]]:
        """Dialogues for each worker; all, where there is none."""
        workers = self.launcher.workers if self.launcher else 1
        return [partial(list, part) for part in blocks(talks, workers, len(talks))]

    def _heard(self, event: object) -> None:
        self._paid()


def _refer(site: Site, shared: None, talks: Sequence[Transcript], tell: Tell) -> list[Transcript]:
    """Dialogues with references, at a site."""
    assert site.world is not None and site.world.writer is not None
    return with_references(talks, site.world.writer, lambda: tell(""))


def _graded(site: Site, shared: tuple[str, bool], talks: Sequence[Transcript], tell: Tell) -> list[list[float | None]]:
    """Rewards of dialogues by a judge of a site."""
    judge, soft = shared
    return grade(talks, site.judges[judge], soft, lambda: tell(""))


def with_start(config: OnlineReproduceConfig) -> OnlineReproduceConfig:
    """The settings with model, cloning and, where none is asked for, σ as in the run that all methods start from."""
    cloned = read_metadata(policy_folder(config.start)).config
    sigma = config.rl.sigma if "sigma" in config.rl.model_fields_set else cloned.rl.sigma
    rl = config.rl.model_copy(update={"sigma": sigma})
    # Where it computes is what is asked for here, wherever it was cloned.
    model = cloned.model.model_copy(update={name: getattr(config.model, name) for name in PLACE})
    return config.model_copy(update={"model": model, "clone": cloned.clone, "rl": rl})


def standard_online(
    config: OnlineReproduceConfig, table: Table, path: Path, launcher: RayLauncher[Site] | None = None
) -> Online:
    """With models from disk, and servers from the settings; what calls cost that LAUNCHER has made is counted, too."""
    split, run, start = split_online(config), config.of_run(config.seeds[0]), policy_folder(config.start)
    require_unseen(split.test, [start])
    about = read_metadata(start)
    require_fitting((config.judge, config.second), about.base_model, about.revision)
    bare, own = backbones(run, load_backbone)
    world = make_env_factory(config.of_evaluation(config.seeds[0]), bare, second=config.second)
    if launcher is not None:
        launcher.ledger = world.ledger
    cloned, say = load_start(start, own, run), Console(stderr=True).print
    return Online(config, table, path, bare, cloned, split, world, say, launcher)
