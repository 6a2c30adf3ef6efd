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
from pamdp.evaluation.records import Control, Judgement, read_controls, read_judgements
from pamdp.evaluation.transcripts import SampleDialogue, read_dialogues
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
        numbers = ((k, v) for k, v in extra if isinstance(v, int | float) and not isinstance(v, bool))
        return {k: float(v) for k, v in numbers if math.isfinite(v)}


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything a report shows, None where it was not measured; a TORN log ends in half a line, which is left out."""

    name: str
    config: str | None = None
    fingerprint: dict[str, JsonValue] | None = None
    metrics: Sequence[Metric] | None = None
    judgements: Sequence[Judgement] | None = None
    controls: Sequence[Control] | None = None
    dialogues: Sequence[SampleDialogue] | None = None
    evaluation: dict[str, JsonValue] | None = None
    torn: bool = False


def load_report(run_dir: Path) -> ReportData:
    """Read a run directory; a RunError where it is none, a DataError where a file is there and wrong."""
    if not run_dir.is_dir():
        raise RunError(f"{run_dir}: no such run directory")
    there = {name: run_dir / name for name in FILES if (run_dir / name).is_file()}
    if not there:
        raise RunError(f"{run_dir}: not a run directory (it has none of {', '.join(FILES)})")
    torn = "metrics.jsonl" in there and read_text(there["metrics.jsonl"])[-1:] not in ("", "\n")
    found = {name.partition(".")[0]: FILES[name](path) for name, path in there.items()}
    return ReportData(run_dir.resolve().name, torn=torn, **found)


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
