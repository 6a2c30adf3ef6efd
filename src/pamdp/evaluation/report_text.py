"""The report's sentences: what was found, and what must be known before it is repeated.

Owns words. Knows nothing of HTML. A sentence says no more than its interval: "preferred" needs one that lies above 0,
anything else is "not shown".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pamdp.evaluation.agreement import between_judges, between_orders
from pamdp.evaluation.controls import Control
from pamdp.evaluation.order import primary, reward_judge
from pamdp.evaluation.records import Judgement, State
from pamdp.evaluation.run_reader import ReportData
from pamdp.evaluation.success import SuccessRate
from pamdp.evaluation.tables import interval

FEW_USERS = 20


def headline(rows: Sequence[SuccessRate], controls: Sequence[Control] | None) -> str:
    """The whole comparison in a sentence, and another one where the controls take something back."""
    if not rows:
        return "No replies were compared in this run."
    method = primary(rows)
    baselines = list(dict.fromkeys(row.baseline for row in rows if row.method == method))
    said: dict[tuple[str, str], list[str]] = {}
    for baseline in baselines:
        against = [row for row in rows if (row.method, row.baseline) == (method, baseline)]
        said.setdefault(_found(against), []).append(baseline)
    parts = [f"{what} {_and(names)} {where}" for (what, where), names in said.items()]
    failed = sum(not control.passed for control in controls or ())
    doubt = f" {failed} of {count(len(controls or ()), 'control')} did not pass." if failed else ""
    return f"{method} is {', and '.join(parts)}.{doubt if controls else ' The controls were not run.'}"


def verdict(row: SuccessRate) -> str:
    """What one rate shows, in a word or three."""
    if not math.isfinite(row.rate.low):
        return "no interval"
    return {1: "preferred", 0: "no difference shown", -1: "worse"}[row.rate.sign]


def count(n: int, singular: str, plural: str = "") -> str:
    """`1 user`, `12 users`, `1,204 replies`."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def compared(judgements: Sequence[Judgement]) -> str:
    """Whether all methods answered the same turns, and whether both orders were judged: as the records show it."""
    turns: dict[tuple[str, str, str], set[State]] = {}
    for j in judgements:
        turns.setdefault((j.method, j.baseline, j.judge), set()).add(j.state)
    if len({frozenset(states) for states in turns.values()}) == 1:
        said = "All comparisons are of the same turns."
    else:
        said = "Not all comparisons are of the same turns, so rates do not compare directly; differences are paired."
    if all(j.orders is not None for j in judgements if not j.masked):
        said += " Each judge saw each pair of replies in both orders, and the two verdicts were averaged."
    return said


def notes(data: ReportData, rows: Sequence[SuccessRate]) -> list[str]:
    """What a reader must know before repeating a number."""
    found = ["Judges are models. No person graded a reply; nothing here measures what people would prefer."]
    judgements = [j for j in data.judgements or () if j.kind == "eval"]
    if rows:
        found += _about_judges(rows, reward_judge(data.fingerprint)) + _about_counts(rows, judgements)
        found += _about_agreement(judgements)
    found += _about_controls(data.controls)
    return found + list(data.notes)


def _found(rows: Sequence[SuccessRate]) -> tuple[str, str]:
    """What one comparison shows, and under how many judges; a loss is said before a win."""
    total, signs = len(rows), [row.rate.sign for row in rows]
    if min(signs) < 0:
        return "worse than", f"under {_judges(signs.count(-1), total)}"
    if max(signs) > 0:
        return "preferred to", f"under {_judges(signs.count(1), total)}"
    return "not shown to differ from", f"under {'any judge' if total > 1 else 'the one judge asked'}"


def _judges(some: int, total: int) -> str:
    if total == 1:
        return "the one judge asked"
    return {2: "both judges"}.get(total, f"all {total} judges") if some == total else f"{some} of {total} judges"


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _about_judges(rows: Sequence[SuccessRate], reward: str | None) -> list[str]:
    judges = list(dict.fromkeys(row.judge for row in rows))
    if len(judges) == 1:
        single = f"Only one judge ({judges[0]}) graded."
        tail = " It also gave the rewards: the policy was trained to please it." if judges[0] == reward else ""
        return [single + tail + " A second, differently built judge is needed before a rate means anything."]
    if reward is None:
        return ["The fingerprint does not say which judge gave the rewards: none can be taken as independent."]
    if reward not in judges:
        return [f"Rewards came from {reward}, which graded nothing here."]
    others = _and([judge for judge in judges if judge != reward])
    return [f"Rewards came from {reward}: its own rates are expected to rise. The independent evidence is {others}."]


def _about_counts(rows: Sequence[SuccessRate], judgements: Sequence[Judgement]) -> list[str]:
    found = list[str]()
    users = len({j.cluster for j in judgements})
    if users < FEW_USERS:
        found.append(
            f"{count(users, 'user')} carry every interval. The intervals are widened for so few "
            "(expanded percentiles), but cannot say what users unlike these would get."
        )
    masked = sum(row.masked for row in rows)
    if masked:
        total = masked + sum(row.n for row in rows)
        found.append(
            f"{masked:,} of {count(total, 'comparison')} ({_percent(masked / total, 1)}) had no verdict and were "
            "masked: they count neither as a tie nor as a loss."
        )
    if len(rows) > 1:
        found.append(
            f"{len(rows)} rates are shown, each with its own 95 % interval; among so many, about one in twenty "
            "null results would look like an effect."
        )
    return found


def _about_agreement(judgements: Sequence[Judgement]) -> list[str]:
    found = [
        f"{a.first} and {a.second} say the same of {_percent(a.same)} of {count(a.n, 'comparison')}; "
        f"Cohen's κ {_kappa(a.kappa.value)} {interval(a.kappa)}."
        for a in between_judges(judgements)
    ]
    for a in between_orders(judgements):
        bias = (
            ""
            if math.isnan(a.first_shown)
            else f", and prefers the one shown first in {_percent(a.first_shown)} of verdicts"
        )
        found.append(
            f"{a.first} says the same in both orders of the replies in {_percent(a.same)} of comparisons{bias}."
        )
    if judgements and all(j.orders is None for j in judgements if not j.masked):
        found.append("The verdicts of the two orders were not kept apart, so a judge's position bias cannot be shown.")
    return found


def _percent(share: float, digits: int = 0) -> str:
    return f"{share * 100:.{digits}f} %"


def _kappa(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.2f}".replace("-", "−")


def _about_controls(controls: Sequence[Control] | None) -> list[str]:
    if not controls:
        return ["The controls were not run: a gain over Vanilla may be one that any action would have given."]
    failed = list(dict.fromkeys(f"{c.name} ({c.judge})" for c in controls if not c.passed))
    if failed:
        return [
            f"{count(len(failed), 'control')} of {len(controls)} did not pass (the interval holds 0 or lies below "
            f"it): {'; '.join(failed)}."
        ]
    return ["All controls came out as they must."]
