"""Success rates with intervals, computed from stored judgements and from nothing else.

Owns what is compared with what (method against baseline under a judge, two methods on the same states, turn by turn),
and what is told first. Knows nothing of files, tables and figures, nor of how intervals are made.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pamdp.evaluation.records import Judgement, State, graded, grouped
from pamdp.evaluation.significance import Estimate, cluster_bootstrap, sign_flip_p


@dataclass(frozen=True, slots=True)
class SuccessRate:
    """One method against one baseline under one judge.

    Attributes:
      masked: comparisons without a verdict; they count nowhere else.
      rate: r_w = (wins − losses) / (wins + losses + ties), Eq. 15; NaN where everything is masked.
      soft: mean of p_win − p_loss.
      p_value: sign-flip test of r_w = 0 over users; NaN where everything is masked.
    """

    method: str
    baseline: str
    judge: str
    wins: int
    losses: int
    ties: int
    masked: int
    rate: Estimate
    soft: Estimate
    p_value: float

    @property
    def n(self) -> int:
        """Comparisons with a verdict."""
        return self.wins + self.losses + self.ties


@dataclass(frozen=True, slots=True)
class Difference:
    """Two methods on the same states under one judge: mean score of `method` minus that of `other`, paired.

    `rate` is the difference of r_w, `soft` that of the soft scores; `rate.n` counts the states both were judged on.
    """

    method: str
    other: str
    baseline: str
    judge: str
    rate: Estimate
    soft: Estimate
    p_value: float


def compare(judgements: Sequence[Judgement], *, n: int = 10_000) -> list[SuccessRate]:
    """Success rates of every method, baseline and judge, from N resamples; a DataError where a comparison is twice."""
    rows = []
    for names, group in grouped(graded(judgements), lambda j: (j.method, j.baseline, j.judge)).items():
        said = [None if j.masked else j.outcome for j in group]
        wins, losses, ties, masked = (said.count(outcome) for outcome in ("win", "loss", "tie", None))
        hard = [None if j.masked else j.score for j in group]
        soft = [None if j.masked else j.soft for j in group]
        found = _tested(hard, soft, [j.cluster for j in group], n)
        rows.append(SuccessRate(*names, wins, losses, ties, masked, *found))
    return rows


def differences(judgements: Sequence[Judgement], *, n: int = 10_000) -> list[Difference]:
    """Every two methods that were judged against one baseline by one judge, on the states that both have.

    Several samples of a state are averaged first, so methods may differ in how often they were sampled. The method that
    appears later is `method`: later stages are compared with earlier ones.
    """
    result = list[Difference]()
    known = [j for j in graded(judgements) if not j.masked]
    for (baseline, judge), group in grouped(known, lambda j: (j.baseline, j.judge)).items():
        means = {method: _by_state(mine) for method, mine in grouped(group, lambda j: j.method).items()}
        for (other, theirs), (method, mine) in combinations(means.items(), 2):
            if shared := [state for state in mine if state in theirs]:
                hard, soft = zip(*(mine[state] - theirs[state] for state in shared), strict=True)
                users = [user or dialogue for user, dialogue, _ in shared]
                result.append(Difference(method, other, baseline, judge, *_tested(hard, soft, users, n)))
    return result


def by_turn(
    judgements: Sequence[Judgement], method: str, baseline: str, judge: str, *, n: int = 10_000
) -> dict[int, Estimate]:
    """r_w at each 0-based turn: whether the method gains as the dialogue tells it more."""
    mine = [j for j in graded(judgements) if (j.method, j.baseline, j.judge) == (method, baseline, judge)]
    turns = sorted(grouped((j for j in mine if not j.masked), lambda j: j.turn).items())
    return {turn: cluster_bootstrap([j.score for j in x], [j.cluster for j in x], n=n) for turn, x in turns}


def primary(rows: Sequence[SuccessRate]) -> str:
    """The method that rows are about: `PAMDP`, or else the one that was compared last."""
    methods = [row.method for row in rows]
    return "PAMDP" if "PAMDP" in methods else methods[-1]


def by_comparison(rows: Sequence[SuccessRate]) -> list[tuple[str, str, list[SuccessRate]]]:
    """Method, baseline, one row per judge: the primary method first, against Vanilla before anything else."""
    groups = grouped(rows, lambda row: (row.method, row.baseline)).items()
    order = sorted(groups, key=lambda group: (group[0][0] != primary(rows), group[0][1] != "Vanilla"))
    return [(method, baseline, found) for (method, baseline), found in order]


def _tested(
    hard: Sequence[float | None], soft: Sequence[float | None], users: Sequence[Hashable], n: int
) -> tuple[Estimate, Estimate, float]:
    """The estimates of both scores, and the p-value of the first."""
    return cluster_bootstrap(hard, users, n=n), cluster_bootstrap(soft, users, n=n), sign_flip_p(hard, users, n)


def _by_state(judgements: Sequence[Judgement]) -> dict[State, np.ndarray]:
    """Mean score and mean soft score of each state."""
    states = grouped(judgements, lambda j: j.state).items()
    return {state: np.array([[j.score for j in found], [j.soft for j in found]]).mean(1) for state, found in states}
