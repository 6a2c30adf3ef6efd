"""What a report needs, read from a run directory.

Owns the run's file names and the tolerance for what is missing: a file that is not there is None, a file that is there
must be right. Knows nothing of HTML.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pamdp.errors import DataError, RunError
from pamdp.evaluation.controls import Control, read_controls
from pamdp.evaluation.records import Judgement, read_judgements, read_utf8
from pamdp.evaluation.sample_dialogues import SampleDialogue, read_dialogues

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

FILES = (
    "config.toml", "fingerprint.json", "metrics.jsonl", "judgements.jsonl", "controls.json", "dialogues.json",
    "evaluation.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the training log: `values` holds its finite numbers only."""

    stage: str
    step: int
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything a report shows; None is what was not measured.

    Attributes:
      name: the run's name, its title.
      config: the resolved configuration, as TOML text.
      fingerprint: code, data, models, judges, seeds, command: any nesting.
      metrics: the training log.
      judgements: the verdicts from which every success rate is computed.
      controls: the controls' rows.
      dialogues: sample dialogues.
      evaluation: who graded, and what else the evaluation noted.
      notes: what the reader of the files had to overlook.
    """

    name: str
    config: str | None = None
    fingerprint: dict[str, Json] | None = None
    metrics: tuple[Metric, ...] | None = None
    judgements: tuple[Judgement, ...] | None = None
    controls: tuple[Control, ...] | None = None
    dialogues: tuple[SampleDialogue, ...] | None = None
    evaluation: dict[str, Json] | None = None
    notes: tuple[str, ...] = ()


def load_report(run_dir: Path) -> ReportData:
    """Read a run directory.

    Raises:
      RunError: the directory is missing, or has none of a run's files.
      DataError: a file is there and wrong; the message names file and place.
    """
    if not run_dir.is_dir():
        raise RunError(f"{run_dir}: no such run directory")
    there = {name: run_dir / name for name in FILES if (run_dir / name).is_file()}
    if not there:
        raise RunError(f"{run_dir}: not a run directory (it has none of {', '.join(FILES)})")
    notes = list[str]()
    return ReportData(
        name=run_dir.resolve().name,
        config=read_utf8(there["config.toml"]) if "config.toml" in there else None,
        fingerprint=_object(there["fingerprint.json"]) if "fingerprint.json" in there else None,
        metrics=_metrics(there["metrics.jsonl"], notes) if "metrics.jsonl" in there else None,
        judgements=tuple(read_judgements(there["judgements.jsonl"])) if "judgements.jsonl" in there else None,
        controls=read_controls(there["controls.json"]) if "controls.json" in there else None,
        dialogues=read_dialogues(there["dialogues.json"]) if "dialogues.json" in there else None,
        evaluation=_object(there["evaluation.json"]) if "evaluation.json" in there else None,
        notes=tuple(notes),
    )


def _object(path: Path) -> dict[str, Json]:
    try:
        found: Json = json.loads(read_utf8(path))
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg}", path, error.lineno) from error
    if not isinstance(found, dict):
        raise DataError("must be a JSON object", path, 1)
    return found


def _metrics(path: Path, notes: list[str]) -> tuple[Metric, ...]:
    """The log, by stage and step; a step that a resumed run wrote again counts once, as written last."""
    lines = read_utf8(path).split("\n")
    last = max((i for i, line in enumerate(lines) if line.strip()), default=-1)
    found: dict[tuple[str, int], Metric] = {}
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            metric = _metric(json.loads(line))
        except ValueError as error:
            # A killed run may leave half of its last line: the log is appended to, unlike every other file.
            if number == last and not line.rstrip().endswith("}"):
                notes.append(
                    "The last line of metrics.jsonl is incomplete, as a killed run leaves it, and is not shown."
                )
                continue
            raise DataError(f"not a metrics row: {error}", path, number + 1) from error
        found[metric.stage, metric.step] = metric
    stages = list(dict.fromkeys(stage for stage, _ in found))
    return tuple(found[key] for key in sorted(found, key=lambda key: (stages.index(key[0]), key[1])))


def _metric(row: Json) -> Metric:
    if not isinstance(row, dict) or not isinstance(step := row.get("step"), int):
        raise ValueError("an object with an integer `step` is needed")
    numbers = {k: float(v) for k, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    values = {k: v for k, v in numbers.items() if k != "step" and math.isfinite(v)}
    return Metric(str(row.get("stage", "")), step, values)
