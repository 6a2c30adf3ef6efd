"""The report of a run: one HTML file that needs no network, no script and no second file.

Owns the order of the sections and what each is given. Knows nothing of how numbers are computed, and takes no time or
random number: the same run directory gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pamdp.evaluation import report_figures, report_text
from pamdp.evaluation.controls import Control
from pamdp.evaluation.order import grouped, primary, reward_judge
from pamdp.evaluation.records import Judgement
from pamdp.evaluation.run_reader import Json, ReportData, load_report
from pamdp.evaluation.success import compare, differences
from pamdp.evaluation.svg import standalone
from pamdp.evaluation.tables import interval, p_text, signed
from pamdp.files import write_atomic

__all__ = ["load_report", "render_report", "write_report"]


def write_report(run_dir: Path) -> Path:
    """Read a run directory and write its `report.html`, and the bars of each judge beside it (`success-JUDGE.svg`).

    Raises:
      RunError: no such run.
      DataError: one of its files is wrong.
    """
    path = run_dir / "report.html"
    data = load_report(run_dir)
    write_atomic(path, render_report(data))
    for drawing in report_figures.success(compare(list(data.judgements or ()))):
        # A judge may be a model, whose name may hold a slash.
        name = re.sub(r"[^\w.]+", "-", drawing.title).strip("-")
        write_atomic(run_dir / f"success-{name}.svg", standalone(drawing.svg))
    return path


def render_report(data: ReportData) -> str:
    """The report as HTML.

    Raises:
      DataError: one comparison stands twice among the judgements.
    """
    judgements = list(data.judgements or ())
    graded = [j for j in judgements if j.kind == "eval"]
    rows, metrics = compare(judgements), data.metrics or ()
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            headline=report_text.headline(rows, data.controls),
            notes=report_text.notes(data, rows),
            primary=primary(rows) if rows else "",
            reward_judge=reward_judge(data.fingerprint),
            groups=grouped(rows),
            facts=_facts(graded),
            compared=report_text.compared(graded),
            differences=differences(judgements),
            bars=list(report_figures.success(rows)),
            turns=list(report_figures.turns(judgements, rows)),
            training=list(report_figures.training(metrics)),
            critics=list(report_figures.critics(metrics)),
            controls=list(report_figures.controls(data.controls or ())),
            control_groups=_control_groups(data.controls or ()),
            fingerprint=[(key, list(_flat("", value))) for key, value in (data.fingerprint or {}).items()],
            evaluation=_flat("", data.evaluation or {}) if data.evaluation else [],
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(
        signed=signed, interval=interval, p_text=p_text, count=report_text.count, verdict=report_text.verdict
    )
    return environment


def _facts(judgements: Sequence[Judgement]) -> list[tuple[str, str]]:
    """What was compared, as (number, what)."""
    states = {j.state for j in judgements}
    per_state = len({(j.state, j.sample) for j in judgements}) / max(1, len(states))
    judges = len({j.judge for j in judgements})
    counts = [
        (len({j.cluster for j in judgements}), "user"),
        (len({(j.user_id, j.dialogue_id) for j in judgements}), "dialogue"),
        (len(states), "turn"),
    ]
    return [
        *((f"{n:,}", what if n == 1 else what + "s") for n, what in counts),
        (f"{per_state:.1f}".removesuffix(".0"), "reply to each turn" if per_state == 1 else "replies to each turn"),
        (f"{judges:,}", "judge" if judges == 1 else "judges"),
        (f"{sum(not j.masked for j in judgements):,}", "verdicts"),
    ]


def _control_groups(controls: Sequence[Control]) -> list[list[Control]]:
    """Rows of one control together, a row per judge."""
    groups: dict[tuple[str, str], list[Control]] = {}
    for control in controls:
        groups.setdefault((control.name, control.what), []).append(control)
    return list(groups.values())


def _flat(prefix: str, value: Json) -> list[tuple[str, str]]:
    """Nested settings as (dotted key, text)."""
    if isinstance(value, dict) and value:
        return [pair for key, inner in value.items() for pair in _flat(f"{prefix}.{key}" if prefix else key, inner)]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [pair for i, item in enumerate(value, 1) for pair in _flat(f"{prefix}.{i}" if prefix else str(i), item)]
    if isinstance(value, list):
        return [(prefix, ", ".join(str(item) for item in value) or "none")]
    return [(prefix, "not recorded" if value is None or value == "" or value == {} else str(value))]
