"""The report of a run: one HTML file that needs no network, no script and no second file.

Owns what the sections are given, and sentences that hang on numbers: one says no more than its interval, "preferred"
needs one that lies above 0. Knows nothing of how numbers are computed, and takes no time or random number: the same run
directory gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import JsonValue

from pamdp.evaluation import figures, svg
from pamdp.evaluation.agreement import between_judges, between_orders
from pamdp.evaluation.records import Control, graded, grouped
from pamdp.evaluation.run_reader import ReportData, load_report, reward_judge
from pamdp.evaluation.success import SuccessRate, by_comparison, compare, differences, primary
from pamdp.evaluation.tables import interval, p_text, signed
from pamdp.files import write_atomic

CAUTION = (
    "Judges are models. The best one of this package agrees with blind readers on .69 of the pairs that these decided, "
    "the older ones no better than a coin (docs/results.md): read the dialogues before you believe a rate."
)


def write_report(run_dir: Path) -> Path:
    """Load a report and write it to `report.html` in the run, and the bars of each judge to `success-JUDGE.svg`."""
    path = run_dir / "report.html"
    data = load_report(run_dir)
    write_atomic(path, render_report(data))
    for drawing in figures.success(compare(data.judgements or ())):
        # A judge may be a model, whose name may hold a slash.
        name = re.sub(r"[^\w.]+", "-", drawing.title).strip("-")
        write_atomic(run_dir / f"success-{name}.svg", f"{drawing.svg}\n")
    return path


def render_report(data: ReportData) -> str:
    """The report as HTML; a DataError where a comparison stands twice among the judgements."""
    judgements, metrics, controls = graded(data.judgements or ()), data.metrics or (), data.controls or ()
    rows, made = compare(judgements), {**(data.fingerprint or {})}
    compared = grouped(judgements, lambda j: (j.method, j.baseline, j.judge)).values()
    if data.evaluation:
        made["evaluation"] = data.evaluation
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.globals.update(signed=signed, interval=interval, p_text=p_text, count=count, listed=listed)
    return environment.get_template("report.html.j2").render(
        data=data,
        caution=CAUTION,
        colours=svg.VARIABLES,
        headline=headline(rows, controls),
        rows=rows,
        judgements=judgements,
        between_judges=between_judges(judgements),
        between_orders=between_orders(judgements),
        failed=dict.fromkeys(f"{c.name} ({c.judge})" for c in controls if not c.passed),
        primary=primary(rows) if rows else "",
        reward_judge=reward_judge(data.fingerprint or {}),
        groups=by_comparison(rows),
        replies=len({(j.state, j.sample) for j in judgements}),
        same_turns=len({frozenset(j.state for j in group) for group in compared}) == 1,
        differences=differences(judgements),
        bars=list(figures.success(rows)),
        turns=list(figures.turns(judgements, rows)),
        training=list(figures.training(metrics)),
        critics=list(figures.critics(metrics)),
        controls=list(figures.controls(controls)),
        control_groups=grouped(controls, lambda control: (control.name, control.what)).values(),
        made=[(key, _flat(value)) for key, value in made.items()],
    )


def headline(rows: Sequence[SuccessRate], controls: Sequence[Control]) -> str:
    """The whole comparison in a sentence, and another one where the controls take something back."""
    if not rows:
        return "No replies were compared in this run."
    method = primary(rows)
    against = grouped((row for row in rows if row.method == method), lambda row: row.baseline)
    said = grouped(against, lambda baseline: _found(against[baseline]))
    parts = [f"{what} {listed(names)} {where}" for (what, where), names in said.items()]
    failed = sum(not control.passed for control in controls)
    doubt = f" {failed} of {count(len(controls), 'control')} did not pass." if failed else ""
    return f"{method} is {', and '.join(parts)}.{doubt if controls else ' The controls were not run.'}"


def count(n: int, what: str) -> str:
    """`1 user`, `1,204 users`."""
    return f"{n:,} {what}" + "s" * (n != 1)


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _found(rows: Sequence[SuccessRate]) -> tuple[str, str]:
    """What one comparison shows, and under how many judges; a loss is said before a win."""
    total, signs = len(rows), [row.rate.sign for row in rows]
    for sign, what in ((-1, "worse than"), (1, "preferred to")):
        if some := signs.count(sign):
            every = {1: "the one judge asked", 2: "both judges"}.get(total, f"all {total} judges")
            return what, f"under {every if some == total else f'{some} of {total} judges'}"
    return "not shown to differ from", f"under {'any judge' if total > 1 else 'the one judge asked'}"


def _flat(value: JsonValue, *at: str) -> list[tuple[str, str]]:
    """Nested settings as (dotted key, text)."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {str(i): item for i, item in enumerate(value, 1)}
    if isinstance(value, dict) and value:
        return [pair for key, inner in value.items() for pair in _flat(inner, *at, key)]
    if isinstance(value, list):
        text = ", ".join(map(str, value)) or "none"
    else:
        text = "not recorded" if value in (None, "", {}) else str(value)
    return [(".".join(at), text)]
