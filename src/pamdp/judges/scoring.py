"""Judges that score replies one by one: verdicts follow from differences of scores, with calibrated probabilities.

Owns the step from scores to verdicts, their calibration and the sharing of work between cases of one context. Knows
nothing of where a score comes from. Symmetric by construction: both orders give the same verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from pamdp.errors import JudgeError
from pamdp.judges.base import Case, Verdict, forget
from pamdp.types import History, Persona

K = TypeVar("K")
V = TypeVar("V")


class Scorer(Protocol):
    """Gives every reply to a message a number for a person; only differences mean something."""

    @property
    def messages(self) -> int:
        """How many of the last messages it reads."""

    @property
    def personal(self) -> bool:
        """Whether a score is for a person; else it is found once, whoever is asked about."""

    def score(self, persona: Persona, history: History, replies: Sequence[str]) -> list[float]:
        """Score of each reply."""


def found_once(
    known: dict[tuple[K, str], V], about: K, replies: Sequence[str], find: Callable[[list[str]], Iterable[V]]
) -> list[V]:
    """What FIND gives of each reply, kept in KNOWN; what is known ABOUT the same is not found again."""
    if new := [reply for reply in dict.fromkeys(replies) if (about, reply) not in known]:
        known.update(zip(((about, reply) for reply in new), find(new), strict=True))
    return [known[about, reply] for reply in replies]


@dataclass(frozen=True, slots=True)
class Calibration:
    """From a difference of scores to probabilities (Rao and Kupper's model of ties).

        P(A) = σ(Δ/τ − δ),  P(B) = σ(−Δ/τ − δ),  P(tie) = 1 − P(A) − P(B)

    Attributes:
      temperature: τ, fitted on pairs of held-out users.
      tie: δ; 0.1 makes a tie of two equally good replies 5 % likely, the verdict of an exact draw only.
      limit: largest |Δ/τ|, so that no single score swamps a batch.
    """

    temperature: float = 1.0
    tie: float = 0.1
    limit: float = 4.0

    def verdict(self, difference: float) -> Verdict:
        """Verdict on a difference of scores, A minus B; an exact draw is a certain tie.

        Raises:
          JudgeError: the difference is no number.
        """
        if not math.isfinite(difference):
            raise JudgeError(f"two scores differ by {difference}, which says nothing")
        if difference == 0:
            return Verdict(0.0, 0.0, 1.0)
        x = max(-self.limit, min(self.limit, difference / self.temperature))
        p_a, p_b = (1 / (1 + math.exp(self.tie - side)) for side in (x, -x))
        return Verdict(p_a, p_b, 1 - p_a - p_b)


class ScoringJudge:
    """A judge made of a scorer and a calibration; FINGERPRINT identifies scorer and weights."""

    def __init__(self, name: str, scorer: Scorer, calibration: Calibration, fingerprint: dict[str, str]) -> None:
        self.name, self.scorer, self.calibration = name, scorer, calibration
        self.fingerprint = {"name": name, **fingerprint, "temperature": f"{calibration.temperature:.4g}"}
        self._known: dict[tuple[tuple[Persona, History], str], float] = {}

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        """Verdicts; cases that share all that is read are scored together, each distinct reply once and for good."""
        groups: dict[tuple[Persona, History], list[Case]] = {}
        for case in cases:
            groups.setdefault(self._about(case), []).append(case)
        for about, same in groups.items():
            replies = [reply for case in same for reply in (case.a, case.b)]
            found_once(self._known, about, replies, partial(self.scorer.score, *about))
            if progress is not None:
                progress(len(same))
        return [self.calibration.verdict(self._score(case, case.a) - self._score(case, case.b)) for case in cases]

    def forget(self) -> None:
        """Drop all scores."""
        self._known.clear()
        forget(self.scorer)

    def _score(self, case: Case, reply: str) -> float:
        return self._known[self._about(case), reply]

    def _about(self, case: Case) -> tuple[Persona, History]:
        who = case.persona if self.scorer.personal else Persona()
        return who, case.history[-self.scorer.messages :]


@dataclass(frozen=True)
class Sum:
    """Several scorers as one: the sum of their scores, each divided by its own temperature."""

    parts: Sequence[tuple[Scorer, float]]

    @property
    def messages(self) -> int:
        """As many as any part reads."""
        return max(scorer.messages for scorer, _ in self.parts)

    @property
    def personal(self) -> bool:
        """Whether any part is."""
        return any(scorer.personal for scorer, _ in self.parts)

    def score(self, persona: Persona, history: History, replies: Sequence[str]) -> list[float]:
        """Summed score of each reply."""
        scores = [[x / tau for x in scorer.score(persona, history, replies)] for scorer, tau in self.parts]
        return [sum(row) for row in zip(*scores, strict=True)]

    def forget(self) -> None:
        """Have all parts forget."""
        for scorer, _ in self.parts:
            forget(scorer)


def fit_temperature(differences: Sequence[float], tie: float = 0.1) -> float:
    """τ of best log-likelihood for differences that should all be positive (a grid, then its refinement)."""

    def cost(log_temperature: float) -> float:
        c = Calibration(math.exp(log_temperature), tie, 30.0)
        return -sum(math.log(max(c.verdict(d).p_a, 1e-9)) for d in differences)

    best = min((x / 4 for x in range(-24, 25)), key=cost)
    return math.exp(min((best + x / 40 for x in range(-10, 11)), key=cost))
