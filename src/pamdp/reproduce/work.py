"""Doing what is missing: methods are trained and reply, judges compare; what is stored already is not done again.

Owns the order of the work and what a finished piece is: a file of replies, a file of judgements. A run that was killed
goes on at the method and seed where it was. Knows nothing of how results are shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pamdp.baselines.method import Job, Method
from pamdp.baselines.registry import find
from pamdp.baselines.replies import Scores, veil
from pamdp.errors import DataError
from pamdp.evaluation.offline_eval import compare_replies
from pamdp.evaluation.records import write_judgements
from pamdp.files import Json, write_json
from pamdp.judges.base import Judge
from pamdp.judges.scores import ReplyScorer
from pamdp.models.backbone import Backbone
from pamdp.models.chat import ChatEncoder
from pamdp.models.recorded import Replies
from pamdp.progress import Progress
from pamdp.reproduce.config import ReproduceConfig
from pamdp.reproduce.grid import Cell, cells_of, read_replies_file, split_of, users_of, write_replies_file
from pamdp.reproduce.tables import Table
from pamdp.train.factory import Split


@dataclass(frozen=True, slots=True)
class Tools:
    """Where models and judges come from.

    Attributes:
      load: a backbone by name; each call gives one of its own.
      judge: a judge by name.
      scorer: a scorer of single replies by name.
      say: told what is done next.
    """

    load: Callable[[str], Backbone]
    judge: Callable[[str], Judge]
    scorer: Callable[[str], ReplyScorer]
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


def prepare(config: ReproduceConfig, table: Table, run: Path, splits: Mapping[str, Mapping[int, Split]]) -> None:
    """Record in every cell who trains and tests, what methods may use, and which of them cannot learn from its data."""
    methods = [find(name) for name in table.methods(config.methods)]
    for cell in cells_of(config, table, run):
        by_seed = splits[cell.folder.name]
        cell.folder.mkdir(parents=True, exist_ok=True)
        write_json(cell.folder / "splits.json", {f"seed-{seed}": users_of(split) for seed, split in by_seed.items()})
        _state_budgets(cell, methods, config, next(iter(by_seed.values())))
        _state_inapplicable(cell, methods, by_seed)


def missing_replies(config: ReproduceConfig, table: Table, run: Path) -> Iterator[tuple[Cell, int, Method]]:
    """What has not replied yet: cell, seed and method, in the order of the work."""
    for cell in cells_of(config, table, run):
        for seed in config.seeds:
            for name in present(cell, table, config):
                done = cell.replies(name, seed).is_file()
                if seed in method_seeds(cell, name, config.seeds) and not done:
                    yield cell, seed, find(name)


def reply_all(
    config: ReproduceConfig, table: Table, run: Path, tools: Tools, splits: Mapping[str, Mapping[int, Split]]
) -> None:
    """Train every method that has not replied yet, and store its replies."""
    for cell, seed, method in missing_replies(config, table, run):
        reply(cell, method, seed, config, tools, splits[cell.folder.name][seed])


def reply(cell: Cell, method: Method, seed: int, config: ReproduceConfig, tools: Tools, split: Split) -> None:
    """Train one method with one seed, and store its replies."""
    tools.say(f"{cell.title}, seed {seed}: {method.name}")
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


def _state_inapplicable(cell: Cell, methods: Sequence[Method], by_seed: Mapping[int, Split]) -> None:
    """What each method lacks with any seed's data, beside what other tables' methods do; one that lacks is left out.

    Raises:
      DataError: none of several methods can learn from these data.
    """
    reasons = {m.name: next(filter(None, (m.lacks(split.train) for split in by_seed.values())), "") for m in methods}
    lacking = {name: reason for name, reason in reasons.items() if reason}
    if lacking and len(lacking) == len(methods) - 1:
        said = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
        raise DataError(f"no method can learn from the data of {cell.title}: {said}", fix="take other data")
    known: dict[str, Json] = dict(cell.inapplicable())
    write_json(cell.folder / "inapplicable.json", known | lacking)


Comparison = tuple[Cell, int, tuple[str, str]]
"""Cell, seed, and (method, baseline)."""


def missing_verdicts(judge: str, config: ReproduceConfig, table: Table, run: Path) -> Iterator[Comparison]:
    """What a judge has not compared yet, in the order of the work."""
    for cell in cells_of(config, table, run):
        for pair in comparisons_of(cell, table, config):
            for seed in pair_seeds(cell, *pair, config.seeds):
                if not cell.judged(judge, *pair, seed).is_file():
                    yield cell, seed, pair


def judge_all(
    config: ReproduceConfig, table: Table, run: Path, tools: Tools, splits: Mapping[str, Mapping[int, Split]]
) -> None:
    """Have every judge compare what it has not compared yet, in both orders."""
    for name in config.judges:
        for cell, seed, pair in missing_verdicts(name, config, table, run):
            compare(cell, name, pair, seed, config, tools, splits[cell.folder.name][seed])


def present(cell: Cell, table: Table, config: ReproduceConfig) -> list[str]:
    """Methods of a table that can learn from the cell's data."""
    lacking = cell.inapplicable()
    return [name for name in table.methods(config.methods) if name not in lacking]


def comparisons_of(cell: Cell, table: Table, config: ReproduceConfig) -> tuple[tuple[str, str], ...]:
    """The comparisons of a table whose methods could both learn from the cell's data."""
    lacking = cell.inapplicable()
    return tuple(pair for pair in table.comparisons(config.methods) if not lacking.keys() & set(pair))


def pair_seeds(cell: Cell, method: str, baseline: str, seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds of a comparison: one where neither side has any."""
    return cell.seeds(find(method).seeded or find(baseline).seeded, seeds)


def method_seeds(cell: Cell, method: str, seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds that a method was run with."""
    return cell.seeds(find(method).seeded, seeds)


def compare(
    cell: Cell, judge: str, pair: tuple[str, str], seed: int, config: ReproduceConfig, tools: Tools, split: Split
) -> None:
    """Have a judge compare the replies of two methods with one seed, and store its verdicts."""
    tools.say(f"{cell.title}, seed {seed}: {judge} compares {pair[0]} with {pair[1]}")
    said = [_replies(cell, method, seed, config) for method in pair]
    found = compare_replies(tools.judge(judge), split.test, said[0], said[1], pair)
    # A seed is one more sample of the same state: intervals are over users, however many seeds there are.
    write_judgements(cell.judged(judge, *pair, seed), [replace(j, judge=judge, sample=seed) for j in found])


def _replies(cell: Cell, method: str, seed: int, config: ReproduceConfig) -> Replies:
    own = method_seeds(cell, method, config.seeds)
    file = cell.replies(method, seed if seed in own else own[0])
    return {(said.dialogue, said.turn): said.text for said in read_replies_file(file)}
