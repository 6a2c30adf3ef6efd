"""`pamdp judge train`: the embedded judges from preference pairs and labelled dialogue turns, then their calibration.

Owns what they learn from, the loop of the likelihood judge, and how their probabilities are calibrated. Knows no files.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch

from pamdp.judges.likelihood import ADAPTER, LikelihoodHead, LikelihoodScorer
from pamdp.judges.match import MatchHead, MatchScorer, train_match
from pamdp.judges.scoring import Scorer, Sum, fit_temperature
from pamdp.judges.sense import SenseScorer, Texts, train_sense
from pamdp.models.adapters import add_adapter, train_backbone
from pamdp.models.backbone import Backbone
from pamdp.models.packed_contexts import halved, pack
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

    MODELS: replies of every model that is to be compared, which `sense` learns to tell from the dialogues' own.
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
        train_match(match, [*learned, *turns], seed, bar.advance)
    slow = [*learned, *pairs_of(dialogues[::4])]
    with Progress("likelihood", len(slow) * (1 + epochs)) as bar:
        likelihood = train_likelihood(
            backbone, slow, cut=backbone.layer_at(CUT), epochs=epochs, seed=seed, progress=bar.advance
        )
    written = [(d.history(t), [turn.preferred, turn.rejected]) for d in dialogues for t, turn in enumerate(d.turns)]
    people = [(history, said) for history, both in written if (said := [reply for reply in both if reply])]
    with Progress("sense", sum(len(replies) for texts in (people, *models) for _, replies in texts)) as bar:
        sense = train_sense(match, people, models, progress=bar.advance)
    with Progress("calibrating", 3 * len(held)) as bar:
        first, second = (temperature_of(scorer, held, bar.advance) for scorer in (match, likelihood))
        both = temperature_of(Sum([(match, first), (likelihood, second)]), held, bar.advance)
    return match, likelihood, sense, {"match": first, "likelihood": second, "embedded": both, "sense": SENSE}


def temperature_of(scorer: Scorer, pairs: Sequence[PreferencePair], progress: Callable[[int], None]) -> float:
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


def train_likelihood(
    backbone: Backbone,
    pairs: Sequence[PreferencePair],
    *,
    cut: int,
    epochs: int,
    seed: int,
    progress: Callable[[int], None],
) -> LikelihoodScorer:
    """A scorer whose adapter and head prefer the preferred replies (Bradley-Terry); a pair is EPOCHS + 1 steps."""
    rank, batch_size, lr = 8, 8, 4e-4
    add_adapter(backbone, ADAPTER, rank, cut, seed)
    train_backbone(backbone, "lora", ADAPTER)
    scorer = LikelihoodScorer(backbone, LikelihoodHead(backbone.d), cut)
    items = []  # of each pair: its row, its states below the adapter (half precision) and log p₀ of both replies
    for pair in pairs:
        replies = (pair.preferred, pair.rejected)
        row = pack([scorer.group(pair.persona, pair.history, replies)], backbone.device)
        scorer.forget()  # what is trained on does not depend on the order of the pairs
        items.append((row, halved(scorer.lower(row)), scorer.base(pair.history, replies)))
        progress(1)
    adapter = [p for p in backbone.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": adapter, "lr": lr}, {"params": scorer.head.parameters(), "lr": 2 * lr}], weight_decay=0.01
    )
    rng, step, total = random.Random(seed), 0, epochs * -(-len(items) // batch_size)
    for _ in range(epochs):
        order = rng.sample(range(len(items)), len(items))
        for start in range(0, len(order), batch_size):
            scale = min(1.0, (step + 1) / 10) * (1 - step / total)
            for group, base in zip(optimizer.param_groups, (lr, 2 * lr), strict=True):
                group["lr"] = base * scale
            optimizer.zero_grad()
            chosen = order[start : start + batch_size]
            for i in chosen:
                row, lower, base_scores = items[i]
                good, bad = scorer.scores(row, lower, base_scores)
                loss = torch.nn.functional.softplus(bad - good) / len(chosen)
                torch.autograd.backward(loss)
                progress(1)
            torch.nn.utils.clip_grad_norm_([*adapter, *scorer.head.parameters()], 1.0)
            optimizer.step()
            step += 1
    train_backbone(backbone, "frozen")
    return scorer
