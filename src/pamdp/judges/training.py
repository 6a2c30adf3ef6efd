"""`pamdp judge train`: the embedded judges from preference pairs and labelled dialogue turns, then their calibration.

Owns what they learn from and how their probabilities are calibrated: a fifth of the persons is held out of a first fit
of the match judge; the likelihood judge holds out the same persons. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pamdp.judges.likelihood import LikelihoodScorer
from pamdp.judges.match import MatchHead, MatchScorer, train_match
from pamdp.judges.scoring import Scorer, Sum, fit_temperature
from pamdp.judges.sense import SenseScorer, Texts, train_sense
from pamdp.judges.train_likelihood import train_likelihood
from pamdp.models.backbone import Backbone
from pamdp.progress import Progress
from pamdp.types import Dialogue, PreferencePair

LAYERS = (0.47, 0.6)
"""Depths that the match judge reads (14 and 18 of the embedded backbone's 30 layers)."""

CUT = 0.67
"""Depth from which the likelihood judge is adapted."""


SENSE = 2.0
"""The temperature of `sense`. Log-odds of who wrote a reply are none of a preference, so it is set and not fitted:
among replies to one state `sense` then spreads rewards as much as `match` does (docs/decisions.md)."""


def pairs_of(dialogues: Sequence[Dialogue]) -> list[PreferencePair]:
    """Every labelled turn as a preference pair of kind `dialogue`."""
    return [
        PreferencePair(f"{d.id}:{t}", d.persona, d.history(t), turn.preferred, turn.rejected, "dialogue")
        for d in dialogues
        for t, turn in enumerate(d.turns)
        if turn.preferred and turn.rejected
    ]


def train_judges(
    backbone: Backbone,
    pairs: Sequence[PreferencePair],
    dialogues: Sequence[Dialogue],
    models: Sequence[Texts],
    epochs: int = 2,
    seed: int = 0,
) -> tuple[MatchScorer, LikelihoodScorer, SenseScorer, dict[str, float]]:
    """Match judge, likelihood judge, sense scorer, and the temperature of each and of the sum of the first two.

    Args:
      models: replies of every model that is to be compared, to states of the dialogues; `sense` learns to tell them
        from the dialogues' own.

    The match judge learns from all pairs and turns, the likelihood judge from the pairs and every fourth
    dialogue, because it is a hundred times slower. Temperatures are fitted on pairs that neither saw (every
    eighth pair, twins together).
    """
    held = [p for p in pairs if _held_out(p)]
    learned = [p for p in pairs if not _held_out(p)]
    turns = pairs_of(dialogues)
    layers = [backbone.layer_at(depth) for depth in LAYERS]
    width = len(layers) * backbone.d
    match = MatchScorer(backbone, MatchHead(2 * width, width), layers)
    with Progress("match", len(learned) + len(turns)) as bar:
        train_match(match, [*learned, *turns], seed=seed, progress=bar.advance)
    slow = [*learned, *pairs_of(dialogues[::4])]
    with Progress("likelihood", len(slow) * (1 + epochs)) as bar:
        likelihood = train_likelihood(
            backbone, slow, cut=backbone.layer_at(CUT), epochs=epochs, seed=seed, progress=bar.advance
        )
    written = [(d.history(t), [turn.preferred, turn.rejected]) for d in dialogues for t, turn in enumerate(d.turns)]
    people = [(history, said) for history, both in written if (said := [reply for reply in both if reply])]
    with Progress("sense", sum(len(replies) for texts in (people, *models) for _, replies in texts)) as bar:
        sense = train_sense(match, people, models, progress=bar.advance)
    scorers: dict[str, Scorer] = {"match": match, "likelihood": likelihood}
    temperature = dict[str, float]()
    with Progress("calibrating", (len(scorers) + 1) * len(held)) as bar:
        for name, scorer in scorers.items():
            temperature[name] = temperature_of(scorer, held, bar.advance)
        both = Sum([(scorer, temperature[name]) for name, scorer in scorers.items()])
        temperature["embedded"] = temperature_of(both, held, bar.advance)
    return match, likelihood, sense, temperature | {"sense": SENSE}


def temperature_of(
    scorer: Scorer, pairs: Sequence[PreferencePair], progress: Callable[[int], None] = lambda _: None
) -> float:
    """τ that calibrates a scorer on labelled pairs."""
    differences = []
    for pair in pairs:
        good, bad = scorer.score(pair.persona, pair.history, (pair.preferred, pair.rejected))
        differences.append(good - bad)
        progress(1)
    return fit_temperature(differences)


def _held_out(pair: PreferencePair) -> bool:
    name = min(pair.id, pair.twin or pair.id)
    return sum(name.encode()) % 8 == 0
