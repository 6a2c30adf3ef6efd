"""Success rates with intervals, computed from stored judgements and from nothing else.

Owns what is compared with what: method against baseline under a judge, two methods on the same states, turn by turn.
Knows nothing of files, tables and figures, nor of how intervals are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pamdp.evaluation.records import Judgement, State, require_unique
from pamdp.evaluation.significance import UNKNOWN, Estimate, cluster_bootstrap, sign_flip_p
from pamdp.rl.metrics import success_rate


@dataclass(frozen=True, slots=True)
class SuccessRate:
    """One method against one baseline under one judge.

    Attributes:
      method: whose replies are graded.
      baseline: what they are compared with.
      judge: who compared.
      wins: verdicts for the method.
      losses: verdicts for the baseline.
      ties: verdicts for neither.
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


def compare(
    judgements: Sequence[Judgement], *, kind: str = "eval", n: int = 10_000, seed: int = 0
) -> list[SuccessRate]:
    """Success rates of every method, baseline and judge, in the order in which they first appear.

    Args:
      judgements: verdicts averaged over both orders; other kinds are left out.
      kind: which judgements to count.
      n: bootstrap resamples.
      seed: of the resamples.

    Raises:
      DataError: one comparison stands twice.
    """
    chosen = [j for j in judgements if j.kind == kind]
    require_unique(chosen)
    groups: dict[tuple[str, str, str], list[Judgement]] = {}
    for j in chosen:
        groups.setdefault((j.method, j.baseline, j.judge), []).append(j)
    return [_row(key, group, n, seed) for key, group in groups.items()]


def differences(
    judgements: Sequence[Judgement], *, kind: str = "eval", n: int = 10_000, seed: int = 0
) -> list[Difference]:
    """Every two methods that were judged against one baseline by one judge, on the states that both have.

    Several samples of a state are averaged first, so methods may differ in how often they were sampled. The method that
    appears later is `method`: later stages are compared with earlier ones.
    """
    groups: dict[tuple[str, str], dict[str, list[Judgement]]] = {}
    for j in judgements:
        if j.kind == kind and not j.masked:
            groups.setdefault((j.baseline, j.judge), {}).setdefault(j.method, []).append(j)
    result = list[Difference]()
    for (baseline, judge), methods in groups.items():
        for other, method in combinations(methods, 2):
            mine, theirs = _by_state(methods[method]), _by_state(methods[other])
            shared = [state for state in mine if state in theirs]
            if not shared:
                continue
            hard = [mine[s][0] - theirs[s][0] for s in shared]
            soft = [mine[s][1] - theirs[s][1] for s in shared]
            users = [user or dialogue for user, dialogue, _ in shared]
            rate = cluster_bootstrap(hard, users, n=n, seed=seed)
            margin = cluster_bootstrap(soft, users, n=n, seed=seed)
            p_value = sign_flip_p(hard, users, n, seed)
            result.append(Difference(method, other, baseline, judge, rate, margin, p_value))
    return result


def by_turn(
    judgements: Sequence[Judgement], method: str, baseline: str, judge: str, *, kind: str = "eval", n: int = 10_000
) -> dict[int, Estimate]:
    """r_w at each 0-based turn: whether the method gains as the dialogue tells it more."""
    turns: dict[int, list[Judgement]] = {}
    for j in judgements:
        if (j.kind, j.method, j.baseline, j.judge) == (kind, method, baseline, judge) and not j.masked:
            turns.setdefault(j.turn, []).append(j)
    return {
        turn: cluster_bootstrap([j.score for j in turns[turn]], [j.cluster for j in turns[turn]], n=n)
        for turn in sorted(turns)
    }


def _row(key: tuple[str, str, str], group: Iterable[Judgement], n: int, seed: int) -> SuccessRate:
    records = list(group)
    kept = [j for j in records if not j.masked]
    wins, losses, ties = (sum(j.outcome == outcome for j in kept) for outcome in ("win", "loss", "tie"))
    masked = len(records) - len(kept)
    if not kept:
        return SuccessRate(*key, wins, losses, ties, masked, UNKNOWN, UNKNOWN, float("nan"))
    users, scores = [j.cluster for j in kept], [j.score for j in kept]
    interval = cluster_bootstrap(scores, users, n=n, seed=seed)
    rate = Estimate(success_rate(wins, losses, ties), interval.low, interval.high, interval.n, interval.clusters)
    soft = cluster_bootstrap([j.soft for j in kept], users, n=n, seed=seed)
    return SuccessRate(*key, wins, losses, ties, masked, rate, soft, sign_flip_p(scores, users, n, seed))


def _by_state(judgements: Iterable[Judgement]) -> dict[State, tuple[float, float]]:
    """Mean score and mean soft score of each state."""
    found: dict[State, list[tuple[float, float]]] = {}
    for j in judgements:
        found.setdefault(j.state, []).append((j.score, j.soft))
    return {state: (float(np.mean([s for s, _ in x])), float(np.mean([s for _, s in x]))) for state, x in found.items()}
