"""Where a comparison keeps what, as files that are there whole or not at all.

Owns folders, file names and reading back. A run online, and every cell (a column's backbone and data) of one offline,
has a folder with

    seed-0/NAME/, seed-0/NAME.jsonl         a method's run, and what it said
    seed-0/read-TABLE/                      offline: a sheet for blind readers, its key, and what they said
    judged/JUDGE/NAME-BASELINE.seed-0.jsonl offline: the judgements of one comparison
    scored/NAME/NAME.seed-0.jsonl           offline: what a language model said of single replies
    graded/JUDGE/NAME.seed-0.jsonl          online: rewards
    splits.json, budgets.json               offline: users of each part, by seed; what each method was allowed to use
    inapplicable.json                       offline: methods that cannot learn from these data, and why
    users.json, costs.json                  online: users of both parts; what calls of the evaluation cost
    audit/                                  online: answers of the audit of simulated users
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pamdp.stored import read_record

AGAIN = "run the same command without --render; delete a damaged file before"
"""What to do about a piece that is missing or damaged."""


def slug(name: str) -> str:
    """A name as a file name."""
    return re.sub(r"[^\w.]+", "-", name).strip("-")


def run_folder(folder: Path, method: str, seed: int) -> Path:
    """The run in which a method learns."""
    return folder / f"seed-{seed}" / slug(method)


def said_file(folder: Path, method: str, seed: int) -> Path:
    """What a method said to test users; the file is there when the method is done."""
    return folder / f"seed-{seed}" / f"{slug(method)}.jsonl"


def verdict_file(folder: Path, kind: str, judge: str, names: Sequence[str], seed: int) -> Path:
    """What a judge said; KIND is "judged", "scored" or "graded"."""
    return folder / kind / slug(judge) / f"{'-'.join(map(slug, names))}.seed-{seed}.jsonl"


def read_json(file: Path, needed: bool = False) -> dict[str, Any]:
    """What a file holds by name; nothing where it is not there and not NEEDED; a DataError where it is wrong."""
    return read_record(file, dict[str, Any], AGAIN) if needed or file.is_file() else {}
