"""What readings say, as tables: success, form and sense by method, agreement of readers and of the model judges.

Owns these sums, over users as everywhere, and their words; every table says who read. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
from rich.table import Table

from pamdp.evaluation.agreement import Agreement
from pamdp.evaluation.reading_sheet import QUESTIONS, WORDS
from pamdp.evaluation.readings import POOLED, Reading, Readings, judgements_of
from pamdp.evaluation.records import Judgement, State, grouped
from pamdp.evaluation.significance import UNKNOWN, Estimate, cluster_bootstrap
from pamdp.evaluation.success import compare
from pamdp.evaluation.tables import Record, TidyTable, Write, flat, measured, p_text, success_table

ON = ("decided pairs", "pairs with ties", *QUESTIONS)
"""What two readers are compared on."""


def success(found: Readings) -> Sequence[Record]:
    """Success rates of every pair of methods, under each reader and under all together."""
    return success_table([row for judge in found.judges for row in compare(judgements_of(found, judge))]).records


def grades(found: Readings, question: str) -> list[Record]:
    """Shares of each grade, and the mean grade; of several readers of a reply each has an equal part of it."""
    rows, methods = list[Record](), dict.fromkeys(method for pair in found.pairs for method in pair)
    for judge, method in ((judge, method) for judge in found.judges for method in methods):
        states = found.judges[judge]
        said = ([r.graded(question).get(r.place.letters[method]) for r in own] for own in states.values())
        given = [[grade for grade in own if grade is not None] for own in said]
        words = enumerate(word for word, *_ in QUESTIONS[question]["grades"])
        values: dict[str, Any] = {word: [[grade == i for grade in own] for own in given] for i, word in words}
        row: dict[str, Estimate] = {
            name: cluster_bootstrap([float(np.mean(x)) if x else None for x in own], [*map(_user, states)])
            for name, own in {**values, "mean": given}.items()
        }
        known = row["mean"].n
        rows.append({"judge": judge, "method": method, "replies": known, "missing": len(given) - known, **row})
    return rows


def between_readers(found: Readings, n: int = 2_000) -> list[Record]:
    """Agreement of every two readers on what both answered; a reply that several methods gave counts once."""
    said = {
        reader: {(what, r.place.state, key): answer for r in own for (what, key), answer in _answers(r, found).items()}
        for reader, own in grouped(found.readings, lambda r: r.reader).items()
    }
    rows = list[Record]()
    for (a, b), what in product(combinations(found.kinds, 2), ON):
        if keys := [key for key in said[a] if key in said[b] and key[0] == what]:
            pairs = [(said[a][key], said[b][key]) for key in keys]
            same = Agreement.of(a, b, pairs, [_user(state) for _, state, _ in keys], n)
            rows.append({"reader": a, "and": b, "on": what, "n": same.n, "same": same.same, "kappa": same.kappa})
    return rows


def judges_with_readers(found: Readings, judgements: Sequence[Judgement]) -> list[Record]:
    """How often a model judge's p_win and p_loss lean as readers decided; even ones count half, as a coin does.

    Two methods that gave one reply are one pair against a third.
    """
    counted = [j for j in judgements if j.kind == "eval" and j.judge != POOLED and not j.masked and j.sample == 0]
    leaning = {(j.judge, j.method, j.baseline, j.state): j.soft for j in counted}
    leaning |= {(j.judge, j.baseline, j.method, j.state): -j.soft for j in counted}
    letters = {reading.place.state: reading.place.letters for reading in found.readings}
    rows = list[Record]()
    for judge in dict.fromkeys(j.judge for j in counted):
        for reader in found.judges:
            right = dict[Hashable, tuple[float, str]]()
            for j in judgements_of(found, reader):
                lean = leaning.get((judge, j.method, j.baseline, j.state))
                if lean is not None and not j.masked and j.score:
                    pair = frozenset((letters[j.state][j.method], letters[j.state][j.baseline]))
                    right[j.state, pair] = (float(np.sign(lean * j.score)) + 1) / 2, j.cluster
            values, users = [x for x, _ in right.values()], [user for _, user in right.values()]
            share = cluster_bootstrap(values, users) if right else UNKNOWN
            rows.append({"judge": judge, "reader": reader, "pairs": share.n, "right": share})
    return rows


def reading_tables(found: Readings, judgements: Sequence[Judgement] = ()) -> dict[str, TidyTable]:
    """All tables that have rows; JUDGEMENTS are those of the model judges on the replies that were read."""
    made = {
        "success": success(found), **{name: grades(found, name) for name in QUESTIONS},
        "readers": between_readers(found), "judges": judges_with_readers(found, judgements),
    }  # fmt: skip
    tables = dict[str, TidyTable]()
    for name, rows in made.items():
        estimates = {key: _shares for row in rows for key, x in row.items() if isinstance(x, Estimate)}
        none = dict.fromkeys(key for key in ("missing", "masked") if not any(row.get(key) for row in rows))
        if rows:
            tables[name] = TidyTable(rows, {**estimates, **WRITE, **none})
    return tables


def terminal(found: Readings, tables: Mapping[str, TidyTable]) -> list[Table]:
    """Tables for a terminal of 80 columns; intervals stand below their numbers, and who read below all."""
    shown = list[Table]()
    for name, table in tables.items():
        shown += table.terminal(WORDS["titles"][name], () if name == "readers" else ("judge",))
        shown[-1].caption = found.read_by
    return shown


def to_json(found: Readings, tables: Mapping[str, TidyTable]) -> dict[str, Any]:
    """Who read, and every table's records, unrounded; null where there is no number."""
    return {"read_by": found.read_by, "kinds": found.kinds, **{name: flat(x.records) for name, x in tables.items()}}


def _answers(reading: Reading, found: Readings) -> dict[tuple[str, str], str]:
    """All that a reader said of a state, by what two readers are compared on; words for letters, which are random."""
    verdicts = dict[str, str]()
    for pair in found.pairs:
        letters = "-".join(sorted({reading.place.letters[method] for method in pair}))
        if "-" in letters and (outcome := reading.outcome(*pair)):
            verdicts.setdefault(letters, outcome)
    decided = {(ON[0], letters): outcome for letters, outcome in verdicts.items() if outcome != "tie"}
    graded = {(name, letter): str(x) for name in QUESTIONS for letter, x in reading.graded(name).items()}
    return {**decided, **{(ON[1], letters): outcome for letters, outcome in verdicts.items()}, **graded}


def _user(state: State) -> str:
    """The unit of resampling, as of judgements."""
    return state[0] or state[1]


def _shares(estimate: Estimate, plus: str = "") -> str:
    return measured(estimate, 2, plus).replace(" [", "\n[")


_signed = partial(_shares, plus="+")
WRITE: dict[str, Write] = {
    "r_w": _signed, "soft": _signed, "kappa": _signed, "p_value": p_text, "comparisons": None, "users": None
}  # fmt: skip
"""How columns are written that are no shares."""
