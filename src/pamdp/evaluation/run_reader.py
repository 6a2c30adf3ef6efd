"""What a report needs, read from a run directory.

Owns the run's file names and the tolerance for what is missing: a file that is not there is None, a file that is there
must be right. Knows nothing of HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from pamdp.errors import RunError
from pamdp.evaluation.controls import Control, read_controls
from pamdp.evaluation.records import Judgement, read_judgements
from pamdp.evaluation.sample_dialogues import SampleDialogue, read_dialogues
from pamdp.stored import read_record, read_records, read_text


class Metric(BaseModel):
    """One line of the training log."""

    model_config = ConfigDict(extra="allow", frozen=True)

    stage: str = ""
    step: int

    @property
    def values(self) -> dict[str, float]:
        """Its finite numbers."""
        extra = (self.model_extra or {}).items()
        numbers = {k: float(v) for k, v in extra if isinstance(v, int | float) and not isinstance(v, bool)}
        return {k: v for k, v in numbers.items() if math.isfinite(v)}


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
    fingerprint: dict[str, JsonValue] | None = None
    metrics: Sequence[Metric] | None = None
    judgements: Sequence[Judgement] | None = None
    controls: Sequence[Control] | None = None
    dialogues: Sequence[SampleDialogue] | None = None
    evaluation: dict[str, JsonValue] | None = None
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
    if "metrics.jsonl" in there and read_text(there["metrics.jsonl"])[-1:] not in ("", "\n"):
        notes.append("The last line of metrics.jsonl is incomplete, as a killed run leaves it, and is not shown.")
    found = {name.partition(".")[0]: FILES[name](path) for name, path in there.items()}
    return ReportData(run_dir.resolve().name, notes=tuple(notes), **found)


def reward_judge(fingerprint: Mapping[str, object]) -> str | None:
    """Name of the judge that gave the rewards: the entry of `judges` whose `role` is `reward`."""
    judges = fingerprint.get("judges")
    entries = [entry for entry in judges if isinstance(entry, dict)] if isinstance(judges, (list, tuple)) else []
    return next((str(entry.get("name")) for entry in entries if entry.get("role") == "reward"), None)


def _metrics(path: Path) -> tuple[Metric, ...]:
    """The log, by stage and step; a step that a resumed run wrote again counts once, as written last."""
    found = {(metric.stage, metric.step): metric for metric in read_records(path, Metric, appended=True)}
    stages = list(dict.fromkeys(stage for stage, _ in found))
    return tuple(found[key] for key in sorted(found, key=lambda key: (stages.index(key[0]), key[1])))


_object = partial(read_record, kind=dict[str, JsonValue])

FILES: dict[str, Callable[[Path], Any]] = {
    "config.toml": read_text,
    "fingerprint.json": _object,
    "metrics.jsonl": _metrics,
    "judgements.jsonl": read_judgements,
    "controls.json": read_controls,
    "dialogues.json": read_dialogues,
    "evaluation.json": _object,
}
"""What is read of a run, each into the field of its name."""
