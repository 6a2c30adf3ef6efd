"""The judge that is what blind readers said: it looks a case up among readings, and knows no other.

Owns the look-up. As a reward it needs no model of anybody's taste: draw replies, have them read, learn; such rounds are
in docs/decisions.md. Knows nothing of how readings came about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from pamdp.data.bundled import load_sample_readings
from pamdp.data.readings import ReadState
from pamdp.errors import JudgeError
from pamdp.judges.base import Case, Verdict
from pamdp.registry import JUDGES
from pamdp.types import History, Persona

MESSAGES = 7
"""How many of the last messages a sheet shows, and readings keep."""
Place = tuple[Persona, History]


class ReadingsJudge:
    """Verdicts of readers on the replies of STATES; several readers of a pair are the probabilities of its verdict."""

    name = "readings"

    def __init__(self, states: Sequence[ReadState]) -> None:
        self._share: dict[tuple[Place, str, str], float] = {}
        for state in states:
            place, texts = (state.persona, state.history), {k: _words(r.text) for k, r in state.replies.items()}
            for a, b, share in state.pairs():
                self._share[place, texts[a], texts[b]] = share
                self._share[place, texts[b], texts[a]] = 1 - share
        digest = hashlib.sha256("".join(state.model_dump_json() for state in states).encode()).hexdigest()
        self.fingerprint = {"name": self.name, "readings": digest[:12]}

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        """One verdict for each case; the same words are a tie. A JudgeError where a case was not read."""
        out = []
        for case in cases:
            a, b, place = _words(case.a), _words(case.b), (case.persona, case.history[-MESSAGES:])
            share = 0.5 if a == b else self._share.get((place, a, b))
            if share is None:
                raise JudgeError(f"nobody has read {case.a!r} beside {case.b!r} at this state")
            out.append(Verdict(0.0, 0.0, 1.0) if share == 0.5 else Verdict(share, 1 - share))
            if progress is not None:
                progress(1)
        return out


def _words(text: str) -> str:
    return " ".join(text.split())


JUDGES.add("readings", lambda _: ReadingsJudge(load_sample_readings("train")))
