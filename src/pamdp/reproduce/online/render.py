"""Table 3 and Figure 4 as CSV, Markdown, LaTeX, JSON, a figure and a table for the terminal.

Owns spelling and files. The same results give the same bytes: no date, no random number, no path goes in.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as Grid
from rich.text import Text

from pamdp.evaluation.significance import Estimate
from pamdp.evaluation.tables import interval, latex_grid, markdown_grid, p_text, signed
from pamdp.files import write_atomic
from pamdp.reproduce.grid import slug
from pamdp.reproduce.online.figure import draw_steps
from pamdp.reproduce.online.results import BASELINES, PRINTED, PRINTED_GAIN, TITLES, OnlineResults

LEFT = 2


def write_online(results: OnlineResults, target: str, folder: Path) -> list[Path]:
    """Write every form into FOLDER, atomically; gives the files."""
    head, rows = header(results, target), rows_of(results, target)
    texts = {
        f"{target}.csv": to_csv(results),
        f"{target}.md": to_markdown(results, target),
        f"{target}.tex": latex_grid(head, rows, LEFT),
        f"{target}.json": json.dumps(to_json(results, target), ensure_ascii=False, indent=2, allow_nan=False) + "\n",
        **{f"{target}-{slug(judge)}.svg": draw_steps(results, target, judge) for judge in results.judges},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_atomic(folder / file, text)
    return [folder / file for file in texts]


def header(results: OnlineResults, target: str) -> list[str]:
    """Names of the columns."""
    steps = [f"step {t + 1}" for t in range(results.horizon)]
    if target == "fig4":
        return ["method", "judge", *steps, "95 % interval of the last", "masked", "paper's last"]
    against = [f"{what} {other}" for other in BASELINES for what in ("final −", "p (Holm),")]
    return ["method", "judge", *steps, "95 % interval of the last", *against, "masked", "paper's final"]


def rows_of(results: OnlineResults, target: str) -> list[list[str]]:
    """The cells of every method and judge."""
    out = []
    for curve in results.curves:
        shown = curve.returns if target == "table3" else curve.gains
        cells = [curve.method, curve.judge, *(signed(e.value, 3) for e in shown), interval(shown[-1], 3)]
        if target == "table3":
            for other in BASELINES:
                found = results.advance(curve.method, other, curve.judge)
                last = None if found is None else found.lead.returns[-1]
                cells += ["", ""] if found is None or last is None else [_number(last), p_text(found.p_holm)]
        printed = (PRINTED if target == "table3" else PRINTED_GAIN).get(curve.method)
        out.append([*cells, str(curve.masked), "not stated" if printed is None else signed(printed, 4)])
    return out


def to_csv(results: OnlineResults) -> str:
    """One line per method, judge and step: return, gain and leads; numbers unrounded, empty where there are none."""
    records = []
    for curve in results.curves:
        for t, (total, gain) in enumerate(zip(curve.returns, curve.gains, strict=True)):
            record = {"method": curve.method, "judge": curve.judge, "step": t + 1}
            record |= _named("return", total) | _named("gain", gain) | {"users": total.clusters, "replies": gain.n}
            for other in BASELINES:
                found = results.advance(curve.method, other, curve.judge)
                record |= _named(f"minus_{other}", None if found is None else found.lead.returns[t])
            records.append(record)
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def to_json(results: OnlineResults, target: str) -> dict[str, object]:
    """Everything, unrounded; null where there is no number."""
    return {
        "target": target, "seeds": list(results.seeds), "users": results.users, "judges": list(results.judges),
        "reward_judge": results.judges[0],
        "curves": [
            {
                "method": c.method, "judge": c.judge, "masked": c.masked, "returns": [_plain(e) for e in c.returns],
                "gains": [_plain(e) for e in c.gains], "paper": PRINTED.get(c.method),
                "paper_last_gain": PRINTED_GAIN.get(c.method),
            }
            for c in results.curves
        ],
        "leads": [
            {
                "method": a.lead.method, "other": a.lead.other, "judge": a.lead.judge,
                "returns": [_plain(e) for e in a.lead.returns], "p": _finite(a.lead.p_value),
                "p_holm": _finite(a.p_holm), "significant": a.significant,
            }
            for a in results.advances
        ],
        "calls_in_learning": results.calls,
    }  # fmt: skip


def to_markdown(results: OnlineResults, target: str) -> str:
    """The page: table, what is significant, calls."""
    parts = [f"# {TITLES[target]}\n", *(f"{note}\n" for note in notes(results, target))]
    parts.append(markdown_grid(header(results, target), rows_of(results, target), LEFT))
    parts.append("".join(f"- {sentence}\n" for sentence in findings(results)))
    if results.calls:
        roles = sorted({role for calls in results.calls.values() for role in calls})
        rows = [[name, *(str(calls.get(role, 0)) for role in roles)] for name, calls in results.calls.items()]
        parts += ["## Calls answered while learning\n", markdown_grid(["method", *roles], rows, 1)]
    return "\n".join(parts)


def to_grid(results: OnlineResults, target: str) -> Grid:
    """The last step for a terminal of 80 columns; every step stands in the files. Significant differences in colour."""
    grid = Grid(title=f"{TITLES[target]}: step {results.horizon}", title_justify="left")
    grid.add_column("method")
    others = BASELINES if target == "table3" else ()
    for name in ("return" if target == "table3" else "gain", *(f"− {other}" for other in others)):
        grid.add_column(name, justify="right", no_wrap=True)
    for judge in results.judges:
        grid.add_section()
        grid.add_row("", Text(f"under {judge}", "italic"))
        for curve in (c for c in results.curves if c.judge == judge):
            cells = [Text(_short((curve.returns if target == "table3" else curve.gains)[-1]))]
            for other in others:
                found = results.advance(curve.method, other, judge)
                last = None if found is None else found.lead.returns[-1]
                style = "" if found is None or last is None or not found.significant else _STYLES[last.sign]
                cells.append(Text("" if last is None else _short(last), style))
            grid.add_row(Text(curve.method), *cells)
    return grid


_STYLES = {1: "bold green", 0: "", -1: "bold red"}


def _short(e: Estimate) -> str:
    return f"{signed(e.value, 2)} {interval(e, 2)}"


def notes(results: OnlineResults, target: str) -> list[str]:
    """How to read the table, and what it cannot say."""
    what = (
        "R_t = r_1 + ... + r_t, undiscounted, mean over dialogues."
        if target == "table3"
        else "The gain of a step is R_t − R_{t−1}, the mean reward of that step."
    )
    out = [
        f"{what} {results.users} users that nobody learned from, {len(results.seeds)} seed(s); users, first messages, "
        "draws and calls are the same for all methods. Every reply is compared with one that the writer of references "
        "gives for the same history: +1 preferred, −1 not, +0.5 tie. A masked reply counts in no step. Intervals: "
        "95 %, bootstrapped over users; differences are paired by user, seed and step. Significant: the interval "
        "excludes 0 and the sign-flip p-value, corrected by Holm for all differences under a judge, is below .05. The "
        "paper's figures are those that its text states, for other models and users: a reference, not a goal.",
        f"The judge {results.judges[0]} also gave the rewards: of methods that learned from it, it is no independent "
        "judge.",
    ]
    if len(results.seeds) < 3:
        out.append(f"Only {len(results.seeds)} seed(s): the spread between trainings is not known.")
    return out


def findings(results: OnlineResults) -> list[str]:
    """Sentences that say which final returns differ significantly, and that the others do not."""
    said = [
        f"{a.lead.method} ends {'above' if a.lead.returns[-1].sign > 0 else 'below'} {a.lead.other} under "
        f"{a.lead.judge}: {_number(a.lead.returns[-1])}."
        for a in results.advances
        if a.significant
    ]
    rest, count = len(results.advances) - len(said), len(results.advances)
    return [*said, f"{'No' if not said else 'No other'} difference is significant ({rest} of {count} comparisons)."]


def _number(e: Estimate) -> str:
    return f"{signed(e.value, 3)} {interval(e, 3)}"


def _named(name: str, e: Estimate | None) -> dict[str, object]:
    ends: Sequence[float] = (math.nan,) * 3 if e is None else (e.value, e.low, e.high)
    return {f"{name}{end}": _finite(x) for end, x in zip(("", "_low", "_high"), ends, strict=True)}


def _plain(e: Estimate) -> dict[str, object]:
    return {"value": _finite(e.value), "low": _finite(e.low), "high": _finite(e.high), "n": e.n, "users": e.clusters}


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
