"""From stored rewards to the pages of Table 3 and Figure 4: returns and gains by step, leads over Vanilla and BC.

Owns what the results are. Reads files only: no model is needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pamdp.evaluation.returns import curves, leads
from pamdp.evaluation.tables import Column, Record, TidyTable, coloured, measured, p_text, signed
from pamdp.reproduce.config import OnlineReproduceConfig, learns
from pamdp.reproduce.figures import steps
from pamdp.reproduce.online import STEPS
from pamdp.reproduce.page import Page, about, corrected, rest, told
from pamdp.reproduce.store import read_records, run_folder, slug, verdict_file
from pamdp.reproduce.tables import GAINS, RETURNS, VANILLA, Table

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
    """The page of what is stored in a run.

    Raises:
      RunError: something is missing or damaged; the message names the file.
    """
    name, title, judges = table.name, table.title, (config.online.judge.model, config.second.model)
    rewards = [
        reward
        for judge in judges
        for method in config.methods
        for seed in config.seeds
        for reward in read_records(verdict_file(path, "graded", judge, (method,), seed), STEPS)
    ]
    ahead = leads(rewards, BASELINES, n=config.resamples)
    compared = corrected(
        [
            {"method": a.method, "other": a.other, "judge": a.judge, "difference": a.returns[-1], "p": a.p_value}
            for a in ahead
        ],
        "difference",
    )
    rows, shown, long, lines = list[Record](), list[Record](), list[Record](), dict[str, Any]()
    for c in curves(rewards, n=config.resamples):
        line, paper, what = (c.returns, RETURNS, "return") if name == "table3" else (c.gains, GAINS, "gain")
        lines.setdefault(c.judge, {})[c.method] = line
        own = {
            a.other: (a, r) for a, r in zip(ahead, compared, strict=True) if (a.method, a.judge) == (c.method, c.judge)
        }
        row: dict[str, Any] = {"method": c.method, "judge": c.judge}
        brief: dict[str, Any] = {"method": c.method, "judge": f"judged by {c.judge}", what: measured(line[-1], 2)}
        long += [
            {
                **row, "step": t + 1, "return": total, "gain": gain, "users": total.clusters, "replies": gain.n,
                **{f"minus_{other}": lead.returns[t] for other, (lead, _) in own.items()},
            }
            for t, (total, gain) in enumerate(zip(c.returns, c.gains, strict=True))
        ]  # fmt: skip
        row |= {f"step_{t}": e.value for t, e in enumerate(line[:-1], 1)} | {f"step_{len(line)}": line[-1]}
        if name == "table3":
            for other in BASELINES:
                _, r = own.get(other, (None, {"difference": None, "p_holm": None, "significant": False}))
                row |= {f"final − {other}": r["difference"], f"p (Holm), {other}": r["p_holm"]}
                brief[f"− {other}"] = r["difference"] and coloured(r["difference"], 2, r["significant"])
        rows.append(row | {"masked": c.masked, "paper": paper.get(c.method)})
        shown.append(brief)
    columns = {key: Column(write=p_text if key[0] == "p" else _signed) for row in rows for key in row}
    columns = {key: column for key, column in columns.items() if key not in ("method", "judge", "masked")}
    columns["paper"] = Column("paper's", lambda x: signed(x, 4))
    users = len({reward.user_id for reward in rewards})
    said = told(compared, "difference", "ends above {other}", "ends below {other}")
    learned = [{"method": method, **_calls(config, path, method)} for method in config.methods if learns(method)]
    return Page(
        name, title,
        [WHAT[name] + NOTE.format(users=users, seeds=len(config.seeds)), *about(config.seeds, judges[0])],
        TidyTable(rows, columns, 2), [*said, rest(len(said), len(compared))],
        {
            "leads": TidyTable(compared, {"p": Column(write=p_text), "p_holm": Column(write=p_text)}, 3),
            "calls_in_learning": TidyTable(learned),
        },
        {"target": name, "seeds": config.seeds, "users": users, "judges": judges, "reward_judge": judges[0]},
        {
            f"-{slug(judge)}": steps(name, f"{title}, judged by {judge}", f"step; judged by {judge}", lines[judge])
            for judge in judges
        },
        TidyTable(shown).terminal(f"{title}: step {config.rl.horizon}", ("judge",)), long,
    )  # fmt: skip


def _signed(value: Any) -> str:
    return signed(value, 3) if isinstance(value, float) else measured(value)


def _calls(config: OnlineReproduceConfig, path: Path, method: str) -> dict[str, int]:
    """Calls by role that were answered while a method learned, all seeds together."""
    total = dict[str, int]()
    for seed in config.seeds:
        file = run_folder(path, method, seed) / "costs.json"
        costs = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        for role, entry in costs.items():
            total[role] = total.get(role, 0) + int(entry["calls"]) - int(entry["failed"])
    return total
