"""From stored rewards to the pages of Table 3 and Figure 4: returns and gains by step, leads over Vanilla and BC.

Owns what the results are. Reads files only: no model is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pamdp.evaluation.returns import Step, curves, leads
from pamdp.evaluation.tables import Record, TidyTable, Write, coloured, measured, p_text, signed
from pamdp.reproduce.config import OnlineReproduceConfig, learns
from pamdp.reproduce.figures import steps
from pamdp.reproduce.page import COMPARED, Page, about, corrected, findings
from pamdp.reproduce.store import AGAIN, read_json, run_folder, slug, verdict_file
from pamdp.reproduce.tables import GAINS, RETURNS, VANILLA, Table
from pamdp.stored import read_records

BASELINES = (VANILLA, "BC")
WHAT = {
    "table3": "R_t = r_1 + ... + r_t, undiscounted, mean over dialogues.",
    "fig4": "The gain of a step is R_t − R_{t−1}, the mean reward of that step.",
}
NOTE = (
    " {users} users that nobody learned from, {seeds} seed(s); users, first messages, draws and calls are the same "
    "for all methods. Every reply is compared with one that the writer of references gives for the same history: +1 "
    "preferred, −1 not, +0.5 tie. A masked reply counts in no step. Intervals: 95 %, bootstrapped over users; "
    "differences are paired by user, seed and step. Significant: the interval excludes 0 and the sign-flip p-value, "
    "corrected by Holm for all differences under a judge, is below .05. The paper's figures are those that its text "
    "states, for other models and users: a reference, not a goal."
)


def online_page(config: OnlineReproduceConfig, table: Table, path: Path) -> Page:
    """The page of what is stored in a run; a DataError names a file that is missing or damaged."""
    judges, whole = (config.judge.model, config.second.model), table.name == "table3"
    rewards = [
        reward
        for judge in judges
        for method in config.methods
        for seed in config.seeds
        for reward in read_records(verdict_file(path, "graded", judge, (method,), seed), Step, AGAIN)
    ]
    ahead = {(a.method, a.judge, a.other): a for a in leads(rewards, BASELINES, n=config.resamples)}
    compared = corrected(
        [
            {"method": a.method, "other": a.other, "judge": a.judge, "difference": a.returns[-1], "p": a.p_value}
            for a in ahead.values()
        ],
        "difference",
    )
    rows, shown, long, lines = list[Record](), list[Record](), list[Record](), dict[str, Any]()
    for c in curves(rewards, n=config.resamples):
        line, paper = (c.returns, RETURNS) if whole else (c.gains, GAINS)
        lines.setdefault(c.judge, {})[c.method] = line
        key: dict[str, Any] = {"method": c.method, "judge": c.judge}
        for t, (total, gain) in enumerate(zip(c.returns, c.gains, strict=True)):
            step = {"step": t + 1, "return": total, "gain": gain, "users": total.clusters, "replies": gain.n}
            found = {other: ahead.get((c.method, c.judge, other)) for other in BASELINES}
            long.append(key | step | {f"minus_{other}": a.returns[t] for other, a in found.items() if a is not None})
        row = key | {f"step_{t}": e.value for t, e in enumerate(line[:-1], 1)} | {f"step_{len(line)}": line[-1]}
        brief = {"method": c.method, "judge": f"judged by {c.judge}", "return" if whole else "gain": line[-1]}
        for r in (r for r in compared if whole and (r["method"], r["judge"]) == (c.method, c.judge)):
            row |= {f"final − {r['other']}": r["difference"], f"p (Holm), {r['other']}": p_text(r["p_holm"])}
            brief[f"− {r['other']}"] = coloured(r["difference"], 2, r["significant"])
        rows.append(row | {"masked": c.masked, "paper": paper.get(c.method)})
        shown.append(brief)
    users = len({reward.user_id for reward in rewards})
    said = findings((compared, "difference", "ends above {other}", "ends below {other}"))
    learned = [{"method": method, **_calls(config, path, method)} for method in config.methods if learns(method)]
    write: dict[str, Write] = {key: _signed for row in rows for key in row if key.startswith(("step", "final"))}
    return Page(
        table, [WHAT[table.name] + NOTE.format(users=users, seeds=len(config.seeds)), *about(config.seeds, judges[0])],
        TidyTable(rows, write | {"paper": lambda x: signed(x, 4)}), said,
        {"leads": TidyTable(compared, COMPARED), "calls_in_learning": TidyTable(learned)},
        {"target": table.name, "seeds": config.seeds, "users": users, "judges": judges, "reward_judge": judges[0]},
        {f"-{slug(judge)}": steps(table, f"step; judged by {judge}", lines[judge]) for judge in judges},
        TidyTable(shown, dict.fromkeys(("return", "gain"), lambda e: measured(e, 2))).terminal(
            f"{table.title}: step {config.rl.horizon}", ("judge",)
        ),
        long,
    )  # fmt: skip


def _signed(value: Any) -> str:
    return signed(value, 3) if isinstance(value, float) else measured(value)


def _calls(config: OnlineReproduceConfig, path: Path, method: str) -> dict[str, int]:
    """Calls by role that were answered while a method learned, all seeds together."""
    total = dict[str, int]()
    for seed in config.seeds:
        for role, entry in read_json(run_folder(path, method, seed) / "costs.json").items():
            total[role] = total.get(role, 0) + int(entry["calls"]) - int(entry["failed"])
    return total
