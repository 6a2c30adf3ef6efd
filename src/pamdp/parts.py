"""What several verbs share: results, runs, policies of a run, evaluation.

Owns building these from settings and folders. Knows nothing of options and printing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from rich.console import RenderableType
from rich.table import Table

from pamdp import checkpoint
from pamdp.config import Config, GraderConfig
from pamdp.errors import RunError
from pamdp.evaluate.controls import Control
from pamdp.evaluate.report import write_report
from pamdp.evaluate.success import compare
from pamdp.evaluate.tables import to_json, to_table
from pamdp.evaluate.trial import action_controls, evaluate, write_replies
from pamdp.files import new_folder
from pamdp.fingerprint import Fingerprint
from pamdp.judges.remote import Graders
from pamdp.models.backbone import Backbone
from pamdp.models.policy import Policy
from pamdp.runs import Run
from pamdp.train.setup import Split, load_policy


@dataclass(frozen=True, slots=True)
class Result:
    """What a verb has to say: JSON for machines, renderables for people; `problems` makes a check fail."""

    json: str
    shown: list[RenderableType] = field(default_factory=list)
    problems: bool = False

    def to_json(self) -> str:
        """One JSON document."""
        return self.json

    def show(self) -> list[RenderableType]:
        """Tables and lines."""
        return self.shown


def policies_of(path: Path, backbone: Backbone) -> dict[str, Policy]:
    """Vanilla, BC and what a run has trained from it (PAMDP, and the permuted control where there is one)."""
    cloned = load_policy(path / "policy", backbone)
    out = {"Vanilla": Policy(backbone, None, None, cloned.readout), "BC": cloned}
    for name, folder in (("PAMDP", "trained"), ("Permuted", "permuted")):
        if (path / folder).is_dir():
            assert cloned.planner is not None
            planner = copy.deepcopy(cloned.planner)
            planner.load_state_dict(checkpoint.load_tensors(path / folder / "planner.safetensors"))
            out[name] = replace(cloned, planner=planner)
    return out


def evaluate_policies(
    policies: dict[str, Policy],
    split: Split,
    judges: Sequence[str],
    config: Config,
    path: Path,
    controls: Sequence[str] = (),
    grader: GraderConfig = GraderConfig(),
) -> Result:
    """Replies, judgements, controls of the methods named in CONTROLS, report.

    Args:
      judges: names of embedded judges, and of language models, which are reached as GRADER says.
    """
    backbone = next(iter(policies.values())).backbone
    made = Graders(grader, lambda: backbone)
    graders = [made.judge(name) for name in judges]
    for name in judges:
        made.check(name)
    replies = {name: write_replies(policy, split.test, config.rl, what=name) for name, policy in policies.items()}
    pairs = [(name, base) for name in policies for base in ("Vanilla", "BC") if name not in (base, "Vanilla")]
    rows = []
    for name in controls:
        if name in policies:
            rows += action_controls(policies[name], split.test, graders, config.rl, replies[name], name)
    judgements = evaluate(replies, pairs, split.test, graders, rows, path)
    found = compare(judgements)
    shown: list[RenderableType] = [to_table(found)]
    if rows:
        shown.append(controls_table(rows))
    report_path = write_report(path)
    shown.append(f"report: {report_path}")
    return Result(
        json.dumps(
            {
                "success": json.loads(to_json(found)),
                "controls": [asdict(row) for row in rows],
                "report": str(report_path),
            }
        ),
        shown,
    )


def controls_table(rows: Sequence[Control]) -> Table:
    """Controls for a terminal."""
    table = Table(title="Controls: mean per state, 95 % interval over users")
    for column in ("control", "measured by", "mean", "low", "high", "states", ""):
        table.add_column(column)
    for row in rows:
        ends = ["-" if end is None else f"{end:+.3f}" for end in (row.low, row.high)]
        table.add_row(row.name, row.judge, f"{row.mean:+.3f}", *ends, str(row.n), "pass" if row.passed else "fail")
    return table


def open_run(path: Path, config: Config, fingerprint: Fingerprint, resume: bool, may_change: Sequence[str] = ()) -> Run:
    """A new run, or the interrupted one; MAY_CHANGE names settings that may differ from before."""
    torch.manual_seed(config.seed)
    if resume and path.exists():
        return Run.resume(path, config, fingerprint, may_change)
    return Run.create(path, config, fingerprint)


def policy_config(folder: Path) -> Config:
    """The settings that a stored policy was cloned with.

    Raises:
      RunError: nothing is stored there.
    """
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"no cloned policy in {folder}; make one with `pamdp train bc`") from error
    return Config.model_validate(about["config"])


def copy_policy(source: Path, target: Path) -> None:
    """Copy a stored policy whole, once."""
    if target.is_dir():
        return
    with new_folder(target) as part:
        for file in source.iterdir():
            (part / file.name).write_bytes(file.read_bytes())
