"""The offline comparison: methods are trained and reply, judges compare, scorers score.

Owns its pieces, what a cell's folder says of data and methods, and what must not change under a run. Knows nothing of
how results are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from pamdp.baselines.latent import find
from pamdp.baselines.method import Job
from pamdp.baselines.replies import Scores, veil
from pamdp.config import MAY_CHANGE as PLACES
from pamdp.errors import ConfigError, DataError, RunError
from pamdp.evaluation.offline_eval import compare_replies
from pamdp.evaluation.records import write_judgements
from pamdp.evaluation.scores import Scored
from pamdp.files import Json, write_json
from pamdp.fingerprint import Fingerprint, Identity
from pamdp.judges.base import Judge, LiveJudge
from pamdp.judges.graders import Graders
from pamdp.judges.scores import ReplyCase, ReplyScorer
from pamdp.llm.ledger import Ledger
from pamdp.llm.limits import Limiter
from pamdp.models.backbone import Backbone
from pamdp.models.chat import ChatEncoder
from pamdp.models.embedded import EMBEDDED, load_backbone
from pamdp.progress import Progress
from pamdp.reproduce.cells import Cell, Grid, StoredReply, split_of, users_of
from pamdp.reproduce.store import read_json, said_file, verdict_file
from pamdp.reproduce.tables import DataSet
from pamdp.reproduce.work import Piece, hold
from pamdp.stored import write_records
from pamdp.train.env_factory import OPERATION
from pamdp.train.factory import Split, load_split

T = TypeVar("T")
MAY_CHANGE = (
    "methods", "seeds", "resamples", "scorers", *PLACES, *(f"judge.{name}" for name in (*OPERATION, "kind", "urls")),
)  # fmt: skip
"""Settings that a run may go on with when they are others: what is stored stays right. Who judges and scores is in
fingerprints of their own."""

PREFERENCES: tuple[DataSet, ...] = ("PrefEval",)
"""Data whose persons have a preference. Scorers give ALOE's 1 to 5 on all data, and PrefEval's categories on these."""


@dataclass
class Offline:
    """The work of a table, for `do_missing`.

    Attributes:
      load: a backbone by name; each call gives one of its own.
      judge, scorer: who compares replies, and who scores single ones, by name.
      ledger: the account of their calls.
    """

    grid: Grid
    load: Callable[[str], Backbone]
    judge: Callable[[str], Judge]
    scorer: Callable[[str], ReplyScorer]
    say: Callable[[str], None]
    ledger: Ledger = field(default_factory=Ledger)
    _waited_for: frozenset[str] = frozenset()

    @cached_property
    def _probes(self) -> dict[str, tuple[ChatEncoder, Identity]]:
        """Encoder and identity of every backbone; its weights go: every method loads a backbone of its own.

        A ConfigError where the longest histories do not fit into one.
        """
        config, found = self.grid.config, dict[str, tuple[ChatEncoder, Identity]]()
        needed = config.clone.max_context + max(config.clone.max_reply, config.rl.max_reply)
        for name in config.models:
            probe = self.load(name)
            if probe.positions is not None and probe.positions < needed:
                raise ConfigError(
                    f"{name} has {probe.positions} positions, and clone.max_context={config.clone.max_context} with a "
                    f"reply takes {needed}; set clone.max_context={probe.positions + config.clone.max_context - needed}"
                )
            found[name] = probe.chat, probe.identity
        return found

    @cached_property
    def _splits(self) -> dict[str, dict[int, Split]]:
        """By folder of the cell, and seed."""
        config = self.grid.config
        return {
            cell.folder.name: {seed: split_of(cell, config, seed, self._probes[cell.model][0]) for seed in config.seeds}
            for cell in self.grid.cells
        }

    @contextmanager
    def open(self) -> Iterator[None]:
        """Find what is not there before anything is trained, and record who trains, tests and may use what."""
        config = self.grid.config
        graders = {name: self.judge(name) for name in (config.judge.model, *config.judges)}
        if config.launcher.kind == "local":
            # Verdicts that have to be waited for stay with this process: it keeps their limits. Workers share them.
            self._waited_for = frozenset(name for name, judge in graders.items() if isinstance(judge, LiveJudge))
        scorers = [self.scorer(name) for name in config.scorers]
        roles = {name: "reward and evaluation" if name == config.judge.model else "evaluation" for name in graders}
        fingerprint = Fingerprint(
            # All data of the settings, not only this table's: tables with other columns share the run.
            data=", ".join(load_split(source).sha256 for source in (config.aloe, config.prefeval) if source.path),
            model=", ".join(config.models),
            revision=", ".join(identity["revision"] for _, identity in self._probes.values()),
            dtype=", ".join({identity["dtype"]: 0 for _, identity in self._probes.values()}),
            quantization=config.model.quantization,
            judges=tuple({**graders[name].fingerprint, "role": role} for name, role in roles.items()),
        )
        splits = self._splits
        with hold(self.grid.path, config, fingerprint, MAY_CHANGE) as run:
            for cell in self.grid.cells:
                self._describe(cell, splits[cell.folder.name], scorers)
            try:
                yield
            finally:
                run.note_refused([{**graders[name].fingerprint, "role": role} for name, role in roles.items()])

    def stages(self) -> Iterator[list[Piece]]:
        """Replies, verdicts of each judge, scores."""
        grid = self.grid
        every = [
            (cell, name, seed)
            for cell in grid.cells
            for seed in grid.config.seeds
            for name in grid.methods(cell)
            if seed in grid.seeds(cell, name)
        ]
        yield [
            Piece(
                said_file(cell.folder, name, seed), f"{cell.title}, seed {seed}: {name}",
                partial(self._reply, cell, name, seed), f"{cell.folder.name} {seed} {find(name).shares or name}",
            )
            for cell, name, seed in every
        ]  # fmt: skip
        yield [
            Piece(
                verdict_file(cell.folder, "judged", judge, pair, seed),
                f"{cell.title}, seed {seed}: {judge} compares {pair[0]} with {pair[1]}",
                partial(self._compare, cell, judge, pair, seed),
                "" if judge in self._waited_for else f"{cell.folder.name} {seed} judged by {judge}",
            )
            for judge in grid.config.judges
            for cell in grid.cells
            for pair in grid.pairs(cell)
            for seed in grid.seeds(cell, *pair)
        ]
        yield [
            Piece(
                verdict_file(cell.folder, "scored", scorer, (name,), seed),
                f"{cell.title}, seed {seed}: {scorer} scores {name}", partial(self._score, cell, scorer, name, seed),
                "" if grid.config.launcher.kind == "local" else f"{cell.folder.name} {seed} scored by {scorer}",
            )
            for scorer in grid.config.scorers
            for cell, name, seed in every
        ]  # fmt: skip

    def _describe(self, cell: Cell, splits: dict[int, Split], scorers: list[ReplyScorer]) -> None:
        """Record who trains, tests and scores, what methods may use and lack; beside what is known of other tables."""
        config = self.grid.config
        methods = [find(name) for name in self.grid.table.methods(config.methods)]
        reasons = {m.name: next(filter(None, (m.lacks(s.train) for s in splits.values())), "") for m in methods}
        lacking = {name: reason for name, reason in reasons.items() if reason}
        if lacking and len(lacking) == len(methods) - 1:
            said = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
            raise DataError(f"no method can learn from the data of {cell.title}: {said}", fix="take other data")
        cell.folder.mkdir(parents=True, exist_ok=True)
        write_json(cell.folder / "splits.json", {f"seed-{seed}": users_of(split) for seed, split in splits.items()})
        turns = sum(len(dialogue.turns) for dialogue in splits[config.seeds[0]].train)
        job = config.of_job(cell.model, cell.data, config.seeds[0])
        budgets = cell.folder / "budgets.json"
        write_json(budgets, read_json(budgets) | {m.name: asdict(m.budget(job, config.tune, turns)) for m in methods})
        write_json(cell.folder / "inapplicable.json", cell.inapplicable() | lacking)
        for scorer in scorers:
            whose = verdict_file(cell.folder, "scored", scorer.name, (), 0).with_name("fingerprint.json")
            now = dict[str, Json](scorer.fingerprint)
            if (before := read_json(whose)) not in ({}, now):
                raise RunError(f"{whose}: these scores are another model's, {before}; delete the folder to score anew")
            whose.parent.mkdir(parents=True, exist_ok=True)
            write_json(whose, now)

    def _reply(self, cell: Cell, method: str, seed: int) -> None:
        """Train one method with one seed, and store its replies."""
        config, split = self.grid.config, self._splits[cell.folder.name][seed]
        job = Job(
            split.train, config.of_job(cell.model, cell.data, seed), config.tune, partial(self.load, cell.model),
            partial(self.judge, config.judge.model), cell.folder / f"seed-{seed}", split.sha256, self.ledger,
        )  # fmt: skip
        # What a method's learning costs is written into its run, and nowhere twice.
        self.ledger.entries.clear()
        replier = find(method).train(job)
        states = [(d, t) for d in split.test for t in range(len(d.turns))]
        with Progress(method, len(states)) as bar:
            replies = replier.write([veil(dialogue) for dialogue in split.test], bar.advance)
        nll = replier.reference_nll(split.test) if isinstance(replier, Scores) else {}
        if silent := [f"turn {t + 1} of dialogue {d.id}" for d, t in states if (d.id, t) not in replies]:
            raise RunError(f"{method} wrote no reply to {silent[0]}")
        stored = [StoredReply(d.user_id, d.id, t, replies[d.id, t], nll.get((d.id, t))) for d, t in states]
        write_records(said_file(cell.folder, method, seed), stored)

    def _compare(self, cell: Cell, judge: str, pair: tuple[str, str], seed: int) -> None:
        """Have a judge compare the replies of two methods with one seed, in both orders, and store its verdicts."""
        ours, theirs = (
            {(s.dialogue, s.turn): s.reply for s in self.grid.replies(cell, name, seed)} for name in pair
        )  # fmt: skip
        found = compare_replies(self.judge(judge), self._splits[cell.folder.name][seed].test, ours, theirs, pair)
        # A seed is one more sample of the same state: intervals are over users, however many seeds there are.
        judgements = [replace(j, judge=judge, sample=seed) for j in found]
        write_judgements(verdict_file(cell.folder, "judged", judge, pair, seed), judgements)

    def _score(self, cell: Cell, name: str, method: str, seed: int) -> None:
        """Have a scorer answer for every reply of a method."""
        scorer, stored = self.scorer(name), self.grid.replies(cell, method, seed)
        test = {d.id: d for d in self._splits[cell.folder.name][seed].test}
        asked = [ReplyCase(test[s.dialogue].persona, test[s.dialogue].history(s.turn), s.reply) for s in stored]
        with Progress("scoring", len(asked) * (1 + (cell.column in PREFERENCES))) as bar:
            fit = scorer.fit(asked, bar.advance)
            kept = scorer.adherence(asked, bar.advance) if cell.column in PREFERENCES else [None] * len(asked)
        scores = [
            Scored(method, name, s.user, s.dialogue, s.turn, seed, rating, None if a is None else a.category)
            for s, rating, a in zip(stored, fit, kept, strict=True)
        ]
        write_records(verdict_file(cell.folder, "scored", name, (method,), seed), scores)


def standard_offline(grid: Grid, limiter: Limiter | None = None) -> Offline:
    """With models from disk; registered judges, all on one backbone, and language models as `judge` reaches them.

    LIMITER puts limits around those; None: this process keeps them by itself.
    """
    config = grid.config

    def load(name: str = EMBEDDED) -> Backbone:
        return load_backbone(config.model.model_copy(update={"name": name}))

    graders = Graders(config.judge, cache(load), Path(config.cache) if config.cache else None, limiter)
    check = cache(graders.check)

    def reached(get: Callable[[str], T], name: str) -> T:
        found = get(name)
        check(name)
        return found

    judge, scorer = partial(reached, graders.judge), partial(reached, graders.scorer)
    return Offline(grid, load, judge, scorer, Console(stderr=True).print, graders.ledger)
