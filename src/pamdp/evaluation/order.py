"""Which comparison a report is about, and which judge gave the rewards.

Owns the order of comparisons. Knows nothing of words and drawings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pamdp.evaluation.success import SuccessRate

Group = tuple[str, str, list[SuccessRate]]
"""(method, baseline, one row per judge)."""


def primary(rows: Sequence[SuccessRate]) -> str:
    """The method that the report is about: `PAMDP`, or else the one that was compared last."""
    methods = [row.method for row in rows]
    return "PAMDP" if "PAMDP" in methods else methods[-1]


def grouped(rows: Sequence[SuccessRate]) -> list[Group]:
    """The report's method first, against Vanilla before anything else; then the rest as they appear."""
    if not rows:
        return []
    first = primary(rows)
    keys = list(dict.fromkeys((row.method, row.baseline) for row in rows))
    keys.sort(key=lambda key: (key[0] != first, key[1] != "Vanilla"))
    return [(m, b, [row for row in rows if (row.method, row.baseline) == (m, b)]) for m, b in keys]


def reward_judge(fingerprint: Mapping[str, object] | None) -> str | None:
    """Name of the judge that gave the rewards: `reward_judge`, or the entry of `judges` whose `role` is `reward`."""
    if not fingerprint:
        return None
    if isinstance(name := fingerprint.get("reward_judge"), str):
        return name
    judges = fingerprint.get("judges")
    entries: list[tuple[object, object]] = list(judges.items()) if isinstance(judges, dict) else []
    if isinstance(judges, list):
        entries = [(entry.get("name"), entry) for entry in judges if isinstance(entry, dict)]
    for name, entry in entries:
        if isinstance(name, str) and isinstance(entry, dict) and entry.get("role") == "reward":
            return name
    return None
