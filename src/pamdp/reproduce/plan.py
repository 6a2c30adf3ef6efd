"""What a comparison has to do: trainings, replies, verdicts, calls and tokens, with or without models and data at hand.

Owns the arithmetic and its assumptions. Loads no model. Where data are missing, the paper's numbers of turns and users
stand in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import accumulate
from typing import Any

import pandas as pd

from pamdp.baselines.latent import find
from pamdp.config import Config
from pamdp.errors import DataError
from pamdp.evaluation.tables import Record, TidyTable, plain
from pamdp.models.embedded import EMBEDDED
from pamdp.reproduce.cells import Cell, Grid
from pamdp.reproduce.config import OnlineReproduceConfig, learns
from pamdp.reproduce.offline import PREFERENCES
from pamdp.reproduce.online import methods_of, split_online
from pamdp.reproduce.tables import TEST_TURNS, DataSet, Table
from pamdp.settings import Settings, flatten
from pamdp.train.estimate import RoleCost, estimate
from pamdp.train.factory import Split, load_split
from pamdp.types import Dialogue, Persona, Turn
from pamdp.workflows import Result

ASSUMED: dict[DataSet, tuple[int, int]] = {
    "ALOE": (27_480 - TEST_TURNS["ALOE"], TEST_TURNS["ALOE"]),
    "PrefEval": (3_500, 1_750),
}
"""Training and test turns where the data are not there: ALOE's as the paper counts them, PrefEval's 1,000 dialogues of
about five turns in three folds."""


def plan_offline(grid: Grid) -> Result:
    """The plan of a table: a record for each method in each cell, over all its seeds.

    Examples, draws and verdicts are those of learning; tokens the most that reading and writing test replies takes;
    judged and scores are questions about these.
    """
    config, names = grid.config, grid.table.methods(grid.config.methods)
    pieces, data, inapplicable = list[Record](), dict[str, str](), dict[str, str]()
    for cell in grid.cells:
        split, train, test, data[cell.source] = _turns(cell, config.clone.max_context, config.seeds[0])
        job = config.of_job(cell.model, cell.data, config.seeds[0])
        lacking = {name: reason for name in names if split and (reason := find(name).lacks(split.train))}
        inapplicable |= {f"{name}, {cell.source}": f"not applicable, {reason}" for name, reason in lacking.items()}
        pairs = [pair for pair in grid.table.comparisons(config.methods) if not lacking.keys() & set(pair)]
        for name in (name for name in names if name not in lacking):
            budget, times = find(name).budget(job, config.tune, train), len(grid.seeds(cell, name))
            judged = sum(len(grid.seeds(cell, *pair)) for pair in pairs if pair[0] == name)
            questions = len(config.scorers) * (1 + (cell.column in PREFERENCES))
            pieces.append(
                {
                    "data": cell.source, "backbone": cell.model, "method": name,
                    "trained": 0 if budget.weights == "none" else times, "examples": budget.examples * times,
                    "draws": budget.draws * times, "verdicts": budget.verdicts * times, "replies": test * times,
                    "tokens": test * times * (budget.context + budget.beside + budget.reply),
                    "judged": test * judged * 2 * len(config.judges), "scores": test * times * questions,
                }
            )  # fmt: skip
    shown, weights = TidyTable(pieces), {name: _weights(name) for name in config.models}
    return _plan(grid.table, config, pieces, shown, data=data, weights=weights, inapplicable=inapplicable)


def plan_online(config: OnlineReproduceConfig, table: Table) -> Result:
    """The plan of a page: a record for each role in each method's learning and evaluation.

    Judges of the package are no calls; the assistant's replies are calls of this machine.
    """
    train, test, data = _users(config)
    seeds, pieces, horizon = len(config.seeds), list[Record](), config.rl.horizon
    world = config.of_evaluation(config.seeds[0])

    def calls(run: Config, who: Sequence[Dialogue], **online: Any) -> list[RoleCost]:
        return estimate(run.model_copy(update={"online": run.online.model_copy(update=online)}), who)

    second = config.second.model_copy(update={"both_orders": config.judge.both_orders})

    # Every seed is one more round.
    evaluated = calls(world, test, rounds=seeds, users=len(test))
    if config.second.kind != "embedded":
        graded = calls(world.model_copy(update={"judge": second}), test, rounds=seeds, users=len(test))
        evaluated += [row for row in graded if row.role == "judge"]
    for method in methods_of(config, table):
        stages = {"is evaluated": (len(test), evaluated)}
        if learns(method) and method not in config.trained:
            rounds = config.online.rounds * seeds
            learned = calls(config.of_run(config.seeds[0], method), train, rounds=rounds)
            stages = {"learns": (min(config.online.users, len(train)) * config.online.rounds, learned), **stages}
        for stage, (played, roles) in stages.items():
            own = RoleCost("assistant", config.model.name, "local", played * horizon * seeds, 0, 0, 0.0)
            pieces += [{"method": method, "stage": stage, **asdict(role)} for role in (own, *roles)]
    if table.name == "simulator":
        pieces += [{"method": "", "stage": "is audited", **row} for row in _audit(config, test, evaluated)]
    groups = pd.DataFrame(pieces).groupby(["stage", "role", "model"], sort=False)
    shown = groups[["calls", "prompt_tokens", "completion_tokens", "money"]].sum(min_count=1).reset_index()
    return _plan(table, config, pieces, TidyTable(shown.to_dict("records")), data={"users": data})


def _plan(table: Table, config: Settings, pieces: Sequence[Record], shown: TidyTable, **more: dict[str, str]) -> Result:
    """PIECES for machines and SHOWN for people; MORE is what the numbers rest on."""
    numbers = [key for key, value in pieces[0].items() if not isinstance(value, str)]
    known = [key for key in numbers if all(piece[key] is not None for piece in pieces)]
    totals = {key: sum(piece[key] for piece in pieces) if key in known else None for key in numbers}
    tables = replace(shown, write={key: _round if total else None for key, total in totals.items()}).terminal(
        f"{table.name}: what there is to do", () if table.online else ("data", "backbone")
    )
    facts = [f"{name}: {text}" for said in more.values() for name, text in said.items()]
    facts.append(f"all: {', '.join(f'{_round(x)} {key}'.replace('_', ' ') for key, x in totals.items() if x)}")
    body = {"table": table.name, "pieces": pieces, "totals": totals, **more, "settings": flatten(config)}
    return Result(json.dumps(plain(body), ensure_ascii=False), [*tables, *facts])


def _round(count: float) -> str:
    """A count that is long enough to blur the table in thousands or millions."""
    if count < 1e5:
        return f"{count:,.2f}".removesuffix(".00")
    return f"{count / 1e3:,.0f}k" if count < 1e7 else f"{count / 1e6:,.1f}M"


def _turns(cell: Cell, limit: int, seed: int) -> tuple[Split | None, int, int, str]:
    """The split if the data are there, training turns, test turns, and what these rest on."""
    try:
        split = load_split(cell.data.model_copy(update={"split_seed": seed if cell.data.folds else 0}))
    except DataError as error:
        train, test = ASSUMED[cell.column]
        return None, train, test, f"{train:,} training and {test:,} test turns assumed: {error}"
    learned, tested = (sum(_fitting(d, limit) for d in part) for part in (split.train, split.test))
    return split, learned, tested, f"{learned:,} training and {tested:,} test turns, about"


def _fitting(dialogue: Dialogue, limit: int) -> int:
    """Turns, about, whose history has no more than LIMIT tokens; a token has four characters, about."""
    said = accumulate(len(turn.user) + len(turn.reply or "") for turn in dialogue.turns)
    return sum(so_far - len(turn.reply or "") <= 4 * limit for so_far, turn in zip(said, dialogue.turns, strict=True))


def _weights(name: str) -> str:
    """The size of a backbone, as far as its name tells it."""
    found = re.search(r"(\d+(?:\.\d+)?)[bB](?![a-zA-Z])", "0.135B" if name == EMBEDDED else name)
    if found is None:
        return "size unknown"
    billions = float(found[1])
    return f"{billions:g} billion weights: {2 * billions:g} GB in bfloat16, {16 * billions:g} GB to train all of them"


def _audit(config: OnlineReproduceConfig, test: Sequence[Dialogue], known: Sequence[RoleCost]) -> list[Record]:
    """A simulated message at every turn of the records; where language models audit, three questions about each."""
    places = sum(len(d.turns) - 1 for d in test)
    asked = {"simulator": places, "judge": 3 * places, "profiler": places + len(test) * (config.rl.horizon + 2)}
    used = {"simulator", *(["judge"] if config.auditor == "judge" else []), *config.recognisers}
    rows = {row.role: asdict(row) for row in reversed(known) if row.role in used & asked.keys()}
    for role, row in rows.items():
        share = asked[role] / max(row["calls"], 1)
        row |= {key: round(row[key] * share) for key in ("calls", "prompt_tokens", "completion_tokens")}
        row["money"] = None if row["money"] is None else row["money"] * share
    return list(rows.values())


def _users(config: OnlineReproduceConfig) -> tuple[Sequence[Dialogue], Sequence[Dialogue], str]:
    try:
        split = split_online(config)
    except DataError as error:
        stand_in = Dialogue("d", "u", Persona("x" * 400, "x" * 300), (Turn("x" * 200, preferred="x" * 300),) * 8)
        train, test = config.train_users or 256, config.test_users or 128
        return [stand_in] * train, [stand_in] * test, f"{train} users to learn from and {test} to test assumed: {error}"
    return split.train, split.test, f"{len(split.train)} users to learn from and {len(split.test)} to test"
