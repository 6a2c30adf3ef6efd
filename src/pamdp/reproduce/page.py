"""A page of results: one table in every form, with notes, findings, further tables and figures.

Owns its files, and what counts as significant on all pages. The same results give the same bytes: no date, no random
number, no path goes in. Knows nothing of what was measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from pamdp.evaluation.significance import holm
from pamdp.evaluation.tables import Record, TidyTable, Write, flat, measured, p_text, plain, records_csv
from pamdp.files import write_atomic
from pamdp.reproduce.tables import Table

COMPARED: dict[str, Write] = {"difference": measured, "p": p_text, "p_holm": p_text}
"""How records of differences are written."""


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that is written of one table or figure.

    Attributes:
      main: the table; LaTeX has nothing else.
      findings: sentences below the table.
      facts: what JSON has beside these tables.
      figures: end of the file's name -> SVG.
      shown: tables for a terminal.
      records: for CSV, where they are not those of the main table.
    """

    table: Table
    notes: Sequence[str]
    main: TidyTable
    findings: Sequence[str]
    tables: Mapping[str, TidyTable]
    facts: Mapping[str, Any]
    figures: Mapping[str, str]
    shown: Sequence[RichTable]
    records: Sequence[Record] = ()

    def body(self) -> dict[str, Any]:
        """Everything for JSON, unrounded; null where there is no number."""
        own = {"rows": flat(self.main.records), "records": flat(self.records)}
        return {**plain(self.facts), **own, **{name: flat(table.records) for name, table in self.tables.items()}}

    def write(self, folder: Path) -> list[Path]:
        """Write every form into FOLDER, atomically; gives the files."""
        parts = [f"# {self.table.title}\n", *(f"{note}\n" for note in self.notes), self.main.markdown()]
        parts.append("".join(f"- {sentence}\n" for sentence in self.findings))
        for name, table in self.tables.items():
            parts += [f"## {name.replace('_', ' ').capitalize()}\n", table.markdown()] if table.records else []
        texts = {
            ".csv": records_csv(self.records or self.main.records), ".md": "\n".join(filter(None, parts)),
            ".tex": self.main.latex(),
            ".json": json.dumps(self.body(), ensure_ascii=False, indent=2, allow_nan=False) + "\n",
            **{f"{end}.svg": figure for end, figure in self.figures.items()},
        }  # fmt: skip
        files = {folder / f"{self.table.name}{end}": text for end, text in texts.items()}
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            write_atomic(file, text)
        return list(files)


def corrected(records: Sequence[Record], key: str) -> list[dict[str, Any]]:
    """The records (of `judge`, `p` and the estimate KEY) with `p_holm` and `significant`.

    Significant: the interval excludes 0 and the corrected p-value is below .05; both must say so. Judges are second
    opinions on one question, not further questions: each has a correction of its own.
    """
    by_judge = {j: iter(holm([r["p"] for r in records if r["judge"] == j])) for j in {r["judge"] for r in records}}
    found = [{**record, "p_holm": next(by_judge[record["judge"]])} for record in records]
    return [record | {"significant": record[key].sign != 0 and record["p_holm"] < 0.05} for record in found]


def findings(*compared: tuple[Sequence[Record], str, str, str]) -> list[str]:
    """A sentence for each significant record, and one on the others.

    COMPARED holds records, the key of their estimate, and what is said where it is above and where it is below 0.
    """
    said = [
        f"{r['method']} {(above if r[key].sign > 0 else below).format_map(r)} under {r['judge']}: {measured(r[key])}."
        for records, key, above, below in compared
        for r in records
        if r["significant"]
    ]
    count = sum(len(records) for records, *_ in compared)
    others = f"{'No other' if said else 'No'} difference is significant ({count - len(said)} of {count} comparisons)."
    return [*said, others]


def about(seeds: Sequence[int], reward: str) -> list[str]:
    """Notes of every comparison: which judge is not independent, and whether there are too few seeds."""
    out = [f"The judge {reward} also gave the rewards: of methods that it rewarded, it is no independent judge."]
    if len(seeds) < 3:
        out.append(f"Only {len(seeds)} seed(s): the spread between trainings is not known.")
    return out
