"""The audit of simulated users as CSV, Markdown, LaTeX, JSON, a figure and a table for the terminal.

Owns spelling and files. The same results give the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict
from pathlib import Path

from matplotlib.axes import Axes
from rich.table import Table as Grid

from pamdp.env.simulated import BROKEN
from pamdp.evaluation import svg
from pamdp.evaluation.significance import Estimate
from pamdp.evaluation.tables import interval, latex_grid, markdown_grid, signed
from pamdp.files import write_atomic
from pamdp.reproduce.online.audit import SimulatorResults

TITLE = "Appendix F: how well simulated users play their part"
HEADER = ("measure", "whose messages", "value", "95 % interval", "paper's")
TURNS = ("turn", "whose messages", "profile told", "leaked", "told apart by", "accuracy", "95 % interval", "chance")
PAPER = {"aligned": 20884 / 27480, "won": 0.4099}
"""What the paper states: turns that align with the persona, and the win rate of simulated messages."""


def write_audit(results: SimulatorResults, folder: Path) -> list[Path]:
    """Write every form into FOLDER, atomically; gives the files."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("measure", "whose", "turn", "value", "low", "high", "n"))
    writer.writerows(_records(results))
    texts = {
        "csv": out.getvalue(), "md": to_markdown(results), "tex": latex_grid(HEADER, _rows(results), 2),
        "json": json.dumps(to_json(results), ensure_ascii=False, indent=2, allow_nan=False) + "\n",
        "svg": _figure(results),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for end, text in texts.items():
        write_atomic(folder / f"simulator.{end}", text)
    return [folder / f"simulator.{end}" for end in texts]


def to_json(results: SimulatorResults) -> dict[str, object]:
    """Everything, unrounded; null where there is no number."""
    whole = asdict(results)
    return {key: _tree(value) for key, value in whole.items()} | {"paper": PAPER}


def to_markdown(results: SimulatorResults) -> str:
    """The page."""
    return "\n".join(
        [
            f"# {TITLE}\n", *(f"{note}\n" for note in notes(results)), markdown_grid(HEADER, _rows(results), 2),
            "## By turn\n", markdown_grid(TURNS, _turns(results), 2),
        ]
    )  # fmt: skip


def to_grid(results: SimulatorResults) -> Grid:
    """The first table for a terminal."""
    grid = Grid(title=TITLE, title_justify="left")
    for i, name in enumerate(HEADER):
        grid.add_column(name, justify="left" if i < 2 else "right")
    for row in _rows(results):
        grid.add_row(*row)
    return grid


def notes(results: SimulatorResults) -> list[str]:
    """How to read the tables, and what they cannot say."""
    found = results.imitation
    how = (
        "A message suits its persona where it is likelier under it than, in the mean, under other users'; the better "
        "of two is the one that gains more by its persona, per character: persona counts, style and sense do not."
        if found.auditor == "likelihood"
        else "A language model says whether the simulated message suits the persona as the recorded one does, and, "
        "asked in both orders, which is better."
    )
    pace = "a turn" if results.pace == 1 else f"every {1 / results.pace:g} turns"
    return [
        f"{how} {found.places} places, {found.masked} of them without an answer or a verdict, which count nowhere.",
        "A message that breaks the part is asked for again and is never said, unless in words that are not known to: "
        "what was rejected, as shares of all answers of whoever plays the users, tells more of the model than what was "
        "said. A stock message stands in where no answer could be used; it counts as nobody's own words.",
        f"Leaked is the share of the profile told beyond one sentence {pace}. Told apart: after so many messages of a "
        "user, the own persona was taken for the likeliest of the candidates; ties share the point. Recorded messages "
        "stand beside simulated ones because there is no absolute scale. First messages are those of the record unless "
        'online.opening is "own".',
    ]


def _rows(results: SimulatorResults) -> list[list[str]]:
    i = results.imitation
    rows = [
        ["suits its persona", "simulated", *_shown(i.aligned), f"{PAPER['aligned']:.3f}"],
        ["suits its persona", "recorded", *_shown(i.recorded), ""],
        ["better of the two", "simulated", *_shown(i.won), f"{PAPER['won']:.3f}"],
        ["better of the two", "recorded", *_shown(i.lost), ""],
    ]
    for name, audit in results.audits.items():
        shown = {"role broken, of what was said": audit.role_breaks, "own words repeated": audit.repetitions}
        if audit.answers:
            shown["answers rejected: any reason"] = sum(audit.rejected.values()) / audit.answers
            rejected = {BROKEN: 0, **audit.rejected}
            shown |= {f"answers rejected: {reason}": n / audit.answers for reason, n in rejected.items()}
        if audit.stock or audit.answers:
            shown["stock messages"] = audit.stock / (audit.stock + audit.messages)
        rows += [[what, name, f"{value:.3f}", "", ""] for what, value in shown.items()]
    return rows


def _turns(results: SimulatorResults) -> list[list[str]]:
    rows = []
    for name, by in results.recovered.items():
        audit = results.audits[name]
        for recovery in by.values():
            for k, accuracy in enumerate(recovery.accuracy):
                told = [f"{x[k]:.2f}" if k < len(x) else "n/a" for x in (audit.told, audit.leaked)]
                rows.append([str(k + 1), name, *told, recovery.name, *_shown(accuracy), f"{recovery.chance:.2f}"])
    return rows


def _shown(e: Estimate) -> list[str]:
    return [f"{e.value:.3f}" if math.isfinite(e.value) else "n/a", interval(e, 3).replace("+", "")]


def _records(results: SimulatorResults) -> list[tuple[object, ...]]:
    i = results.imitation
    named = (("aligned", "simulated", i.aligned), ("aligned", "recorded", i.recorded))
    rows: list[tuple[object, ...]] = [
        (what, whose, "", *_plain(e))
        for what, whose, e in (*named, ("won", "simulated", i.won), ("won", "recorded", i.lost))
    ]
    for whose, audit in results.audits.items():
        rows += [("role_breaks", whose, "", audit.role_breaks, "", "", audit.messages)]
        rows += [("repetitions", whose, "", audit.repetitions, "", "", audit.messages)]
        rows += [("stock", whose, "", audit.stock, "", "", audit.stock + audit.messages)]
        rows += [(f"rejected: {reason}", whose, "", n, "", "", audit.answers) for reason, n in audit.rejected.items()]
        rows += [("told", whose, t + 1, x, "", "", "") for t, x in enumerate(audit.told)]
        rows += [("leaked", whose, t + 1, x, "", "", "") for t, x in enumerate(audit.leaked)]
    for whose, by in results.recovered.items():
        for recovery in by.values():
            rows += [(recovery.name, whose, k + 1, *_plain(e)) for k, e in enumerate(recovery.accuracy)]
    return rows


def _plain(e: Estimate) -> tuple[object, ...]:
    return (*("" if not math.isfinite(x) else x for x in (e.value, e.low, e.high)), e.n)


def _figure(results: SimulatorResults) -> str:
    lines = [(f"{r.name}, {name}", r) for name, by in results.recovered.items() for r in by.values()]

    def draw(axes: Axes) -> None:
        axes.grid(axis="y", color=svg.GRID, linewidth=0.7)
        axes.axhline(lines[0][1].chance, color=svg.MUTED, linewidth=0.8)
        for i, (name, recovery) in enumerate(lines):
            at = [k + 1 + 0.06 * (i - (len(lines) - 1) / 2) for k in range(len(recovery.accuracy))]
            for x, e in zip(at, recovery.accuracy, strict=True):
                if math.isfinite(e.low):
                    axes.vlines(x, e.low, e.high, color=svg.nth_colour(i), linewidth=1.2, alpha=0.5)
            values = [e.value for e in recovery.accuracy]
            axes.plot(
                at, values, color=svg.nth_colour(i), marker="osD^vP"[i % 6], markersize=4, linewidth=1.3, label=name
            )
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("messages of the user")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False, handlelength=1.2)

    last = "; ".join(f"{name} {signed(r.accuracy[-1].value)}" for name, r in lines)
    return svg.draw(2.6, draw, f"Users told apart after each of their messages, at last: {last}", "simulator") + "\n"


def _tree(value: object) -> object:
    if isinstance(value, dict):
        return {key: _tree(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_tree(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
