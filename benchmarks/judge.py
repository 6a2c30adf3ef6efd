"""Scores of several replies to each state: `python -m benchmarks.judge`.

Ours is the likelihood judge, whose replies share one pass over their context. The peer computes the same scores with
two whole passes for each reply, with and without the person, and the whole table of logits, as `model(ids).logits`
gives it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from benchmarks import inputs
from benchmarks.arena import Duel, Options, main
from benchmarks.measure import Facts, Measured, Prepared
from pamdp.judges.embedded import load_judge
from pamdp.judges.likelihood import ADAPTER, LikelihoodScorer
from pamdp.models.backbone import Backbone
from pamdp.types import History, Persona

DEFAULT = Options(users=6, turns=4, replies=8)
QUICK = Options(users=2, turns=2, replies=5, repeats=1)

Case = tuple[Persona, History, list[str]]


def ours(options: Options) -> Prepared:
    """The likelihood judge."""
    backbone, cases, scorer = _prepare(options)

    def work() -> Facts:
        return {"scores": [score for case in cases for score in scorer.score(*case)]}

    return Prepared(backbone.model, work, sum(len(replies) for _, _, replies in cases))


def two_passes(options: Options) -> Prepared:
    """Two plain passes for each reply."""
    backbone, cases, scorer = _prepare(options)

    @torch.no_grad()
    def work() -> Facts:
        return {"scores": [score for case in cases for score in _scores(backbone, scorer, *case)]}

    return Prepared(backbone.model, work, sum(len(replies) for _, _, replies in cases))


def match(options: Options) -> Prepared:
    """The match judge, which rewards by default: no adapter, no logits, two thirds of the layers."""
    backbone, cases, _ = _prepare(options)
    scorer = load_judge("match", backbone).scorer

    def work() -> Facts:
        return {"scores": [score for case in cases for score in scorer.score(*case)]}

    return Prepared(backbone.model, work, sum(len(replies) for _, _, replies in cases))


def _prepare(options: Options) -> tuple[Backbone, list[Case], LikelihoodScorer]:
    """Every state with its own two replies, then those of the same dialogue's other turns."""
    backbone, whole = inputs.backbone(), inputs.dialogues(replace(options, turns=Options().turns))
    scorer = load_judge("likelihood", backbone).scorer
    assert isinstance(scorer, LikelihoodScorer)
    cases: list[Case] = []
    for dialogue in whole:
        pairs = [[text for text in (turn.preferred, turn.rejected) if text] for turn in dialogue.turns]
        for t in range(min(options.turns, len(dialogue.turns))):
            near = sorted(range(len(pairs)), key=lambda other: (abs(other - t), other))
            replies = list(dict.fromkeys(text for other in near for text in pairs[other]))[: options.replies]
            cases.append((dialogue.persona, dialogue.history(t), replies))
    return backbone, cases, scorer


def _scores(
    backbone: Backbone, scorer: LikelihoodScorer, persona: Persona, history: History, replies: Sequence[str]
) -> list[float]:
    known, anyone = (scorer.group(who, history, replies) for who in (persona, Persona()))
    with backbone.adapter(ADAPTER):
        adapted = [_pass(backbone, known.context, reply) for reply in known.replies]
    with backbone.adapter(None):
        bare = [_pass(backbone, anyone.context, reply) for reply in anyone.replies]
    out = []
    for (log_p, states), (base, _) in zip(adapted, bare, strict=True):
        z = scorer.head.readout(states.mean(0) + states[-1])[0]
        out.append(float(scorer.head.alpha * (log_p - base) + z))
    return out


def _pass(backbone: Backbone, context: Sequence[int], reply: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log p(reply | context) and the reply's final states."""
    out = backbone.model(input_ids=torch.tensor([[*context, *reply]]), output_hidden_states=True, use_cache=False)
    table = out.logits[0, len(context) - 1 : -1].log_softmax(-1)
    log_p = table.gather(1, torch.tensor(list(reply))[:, None]).sum()
    return log_p, out.hidden_states[-1][0, len(context) :]


def difference(run: Mapping[str, Measured]) -> Facts:
    """Largest difference of two scores that should be one."""
    mine, theirs = (torch.tensor(run[name].facts["scores"]) for name in ("ours, likelihood", "two passes"))
    return {"largest_difference": float(f"{float((mine - theirs).abs().max()):.3g}")}


if __name__ == "__main__":
    main(
        "judge",
        {"ours, likelihood": ours, "ours, match": match, "two passes": two_passes},
        [Duel("ours, likelihood", "two passes", 3.0), Duel("ours, match", "two passes")],
        DEFAULT,
        QUICK,
        difference,
    )
