"""Scores of the stored replies by language models: which questions for which data, and the file that keeps answers.

Owns what is asked of which column. Knows nothing of how a scorer asks (judges/scores.py) and of what comes of the
answers (evaluation/scores.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

from pamdp.errors import RunError
from pamdp.evaluation.scores import Scored, write_scores
from pamdp.files import Json, write_json
from pamdp.judges.scores import ReplyCase, ReplyScorer
from pamdp.progress import Progress
from pamdp.reproduce.config import ReproduceConfig
from pamdp.reproduce.grid import Cell, read_replies_file
from pamdp.reproduce.tables import Column, Table
from pamdp.reproduce.work import Tools, method_seeds, present
from pamdp.train.factory import Split

Question = Literal["fit", "adherence"]
QUESTIONS: dict[Column, tuple[Question, ...]] = {"ALOE": ("fit",), "PrefEval": ("fit", "adherence")}
"""ALOE's 1 to 5 is asked of all data; PrefEval's categories need a preference, which only its own persons have."""


def score_all(
    config: ReproduceConfig,
    cells: Sequence[Cell],
    table: Table,
    tools: Tools,
    splits: Mapping[str, Mapping[int, Split]],
) -> None:
    """Have every scorer answer for every reply that it has not answered for yet."""
    for name in config.scorers:
        scorer = tools.scorer(name)
        for cell in cells:
            _same_scorer(cell, scorer)
            for method in present(cell, table, config):
                for seed in method_seeds(cell, method, config.seeds):
                    if not cell.scored(name, method, seed).is_file():
                        tools.say(f"{cell.title}, seed {seed}: {name} scores {method}")
                        _score(cell, scorer, method, seed, splits[cell.folder.name][seed])


def _same_scorer(cell: Cell, scorer: ReplyScorer) -> None:
    """Record who scores, so that one name never stands for two models.

    Raises:
      RunError: another model of that name has scored here.
    """
    file = cell.scored(scorer.name, "x", 0).parent / "fingerprint.json"
    now: dict[str, Json] = dict(scorer.fingerprint)
    if file.is_file() and (before := json.loads(file.read_text(encoding="utf-8"))) != now:
        raise RunError(f"{file}: these scores were given by another model, {before}; delete the folder to score anew")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, now)


def _score(cell: Cell, scorer: ReplyScorer, method: str, seed: int, split: Split) -> None:
    dialogues = {d.id: d for d in split.test}
    stored = read_replies_file(cell.replies(method, seed))
    asked = [
        ReplyCase(dialogues[s.dialogue].persona, dialogues[s.dialogue].history(s.turn), s.text)
        for s in stored
    ]  # fmt: skip
    questions = QUESTIONS[cell.column]
    with Progress("scoring", len(asked) * len(questions)) as bar:
        fit = scorer.fit(asked, bar.advance)
        kept = scorer.adherence(asked, bar.advance) if "adherence" in questions else [None] * len(asked)
    write_scores(
        cell.scored(scorer.name, method, seed),
        [
            Scored(method, scorer.name, s.user, s.dialogue, s.turn, seed, rating, None if a is None else a.category)
            for s, rating, a in zip(stored, fit, kept, strict=True)
        ],
    )
