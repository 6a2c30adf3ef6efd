"""Doing what is missing: methods are trained and reply, judges compare; what is stored already is not done again.

Owns the order of the work and what a finished piece is: a file of replies, a file of judgements. A run that was killed
goes on at the method and seed where it was. Knows nothing of how results are shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pamdp.baselines.method import Job, Method
from pamdp.baselines.registry import find
from pamdp.baselines.replies import Replies, Scores, veil
from pamdp.evaluate.records import write_judgements
from pamdp.evaluate.trial import compare_replies
from pamdp.files import Json, write_json
from pamdp.judges.base import Judge
from pamdp.models.backbone import Backbone
from pamdp.models.chat import ChatEncoder
from pamdp.progress import Progress
from pamdp.reproduce.cells import Cell, cells_of, read_replies_file, split_of, users_of, write_replies_file
from pamdp.reproduce.config import ReproduceConfig
from pamdp.reproduce.tables import Table
from pamdp.train.setup import Split


@dataclass(frozen=True, slots=True)
class Tools:
    """Where models and judges come from.

    Attributes:
      load: a backbone by name; each call gives one of its own.
      judge: a judge by name.
      say: told what is done next.
    """

    load: Callable[[str], Backbone]
    judge: Callable[[str], Judge]
    say: Callable[[str], None]


def splits_of(
    config: ReproduceConfig, table: Table, run: Path, chats: Mapping[str, ChatEncoder]
) -> dict[str, dict[int, Split]]:
    """Splits of every cell (by the name of its folder) and seed; a split depends on how long its texts are in tokens.

    Args:
      chats: the encoder of every backbone.
    """
    return {
        cell.folder.name: {seed: split_of(cell, config, seed, chats[cell.model]) for seed in config.seeds}
        for cell in cells_of(config, table, run)
    }


def reply_all(
    config: ReproduceConfig, table: Table, run: Path, tools: Tools, splits: Mapping[str, Mapping[int, Split]]
) -> None:
    """Train every method that has not replied yet, and store its replies."""
    methods = [find(name) for name in table.methods(config.methods)]
    for cell in cells_of(config, table, run):
        by_seed = splits[cell.folder.name]
        cell.folder.mkdir(parents=True, exist_ok=True)
        write_json(cell.folder / "splits.json", {f"seed-{seed}": users_of(split) for seed, split in by_seed.items()})
        _state_budgets(cell, methods, config, next(iter(by_seed.values())))
        for seed in config.seeds:
            for method in methods:
                done = cell.replies(method.name, seed).is_file()
                if seed in method_seeds(cell, method.name, config.seeds) and not done:
                    tools.say(f"{cell.title}, seed {seed}: {method.name}")
                    _reply(cell, method, seed, config, tools, by_seed[seed])


def _reply(cell: Cell, method: Method, seed: int, config: ReproduceConfig, tools: Tools, split: Split) -> None:
    job = Job(
        split.train, config.of_job(cell.model, cell.data, seed), config.tune, lambda: tools.load(cell.model),
        lambda: tools.judge(config.reward), cell.root(seed), split.sha256,
    )  # fmt: skip
    replier = method.train(job)
    with Progress(method.name, sum(len(d.turns) for d in split.test)) as bar:
        replies = replier.write([veil(dialogue) for dialogue in split.test], bar.advance)
    nll = replier.reference_nll(split.test) if isinstance(replier, Scores) else {}
    write_replies_file(cell.replies(method.name, seed), split.test, replies, nll)


def _state_budgets(cell: Cell, methods: Sequence[Method], config: ReproduceConfig, split: Split) -> None:
    """What each method may use, beside what other tables' methods may."""
    file = cell.folder / "budgets.json"
    known: dict[str, Json] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    turns = sum(len(dialogue.turns) for dialogue in split.train)
    job = config.of_job(cell.model, cell.data, config.seeds[0])
    write_json(file, known | {m.name: asdict(m.budget(job, config.tune, turns)) for m in methods})


def judge_all(
    config: ReproduceConfig, table: Table, run: Path, tools: Tools, splits: Mapping[str, Mapping[int, Split]]
) -> None:
    """Have every judge compare what it has not compared yet, in both orders."""
    for name in config.judges:
        judge = tools.judge(name)
        for cell in cells_of(config, table, run):
            for method, baseline in table.comparisons(config.methods):
                for seed in pair_seeds(cell, method, baseline, config.seeds):
                    if not cell.judged(name, method, baseline, seed).is_file():
                        tools.say(f"{cell.title}, seed {seed}: {name} compares {method} with {baseline}")
                        _judge(cell, judge, name, (method, baseline), seed, config, splits[cell.folder.name][seed])


def pair_seeds(cell: Cell, method: str, baseline: str, seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds of a comparison: one where neither side has any."""
    return cell.seeds(find(method).seeded or find(baseline).seeded, seeds)


def method_seeds(cell: Cell, method: str, seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds that a method was run with."""
    return cell.seeds(find(method).seeded, seeds)


def _judge(
    cell: Cell, judge: Judge, name: str, pair: tuple[str, str], seed: int, config: ReproduceConfig, split: Split
) -> None:
    said = [_replies(cell, method, seed, config) for method in pair]
    found = compare_replies(judge, split.test, said[0], said[1], pair)
    file = cell.judged(name, *pair, seed)
    # A seed is one more sample of the same state: intervals are over users, however many seeds there are.
    write_judgements(file, [replace(j, judge=name, sample=seed) for j in found])


def _replies(cell: Cell, method: str, seed: int, config: ReproduceConfig) -> Replies:
    own = method_seeds(cell, method, config.seeds)
    file = cell.replies(method, seed if seed in own else own[0])
    return {(said.dialogue, said.turn): said.text for said in read_replies_file(file)}
