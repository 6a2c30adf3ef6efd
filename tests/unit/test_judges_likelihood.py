"""The likelihood judge runs what contexts share once, and scores as if it ran every context whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pamdp.judges import likelihood
from pamdp.judges.likelihood import ADAPTER, LikelihoodHead, LikelihoodScorer
from pamdp.models.adapters import add_adapter
from pamdp.models.backbone import Backbone
from pamdp.models.packed_contexts import pack, run_layers
from pamdp.types import History, Message, Persona

NURSE = Persona("A nurse who works nights and cooks soup.", "terse")
BAKER = Persona("A baker.", "exuberant")
REPLIES = ("Soup, then tea.", "How about a very long breakfast?", "ok")


def _ask(text: str) -> History:
    return (Message("user", text),)


STATES = [(NURSE, "what to cook?"), (NURSE, "and what to drink?"), (BAKER, "what to cook?"), (NURSE, "what to cook?")]


@pytest.fixture
def scorer(tiny_backbone: Backbone) -> LikelihoodScorer:
    add_adapter(tiny_backbone, ADAPTER, 2, 1)
    generator = torch.Generator().manual_seed(1)
    for name, weight in tiny_backbone.model.named_parameters():
        if "lora_" in name:
            weight.data.normal_(std=0.3, generator=generator)
    head = LikelihoodHead(tiny_backbone.d)
    nn.init.normal_(head.readout.weight)
    return LikelihoodScorer(tiny_backbone, head.requires_grad_(False), 1)


def _whole(scorer: LikelihoodScorer, persona: Persona, text: str) -> list[float]:
    """Every reply in rows of its own, nothing kept."""
    out = []
    for reply in REPLIES:
        backbone = scorer.backbone
        row, bare = (pack([scorer.group(w, _ask(text), [reply])], backbone.device) for w in (persona, Persona()))
        with torch.no_grad():
            with backbone.adapter(None):
                states = run_layers(backbone, bare, None, 0, -1)
            out += [float(s) for s in scorer.scores(row, scorer.lower(row), scorer._log_probs(bare, states))]
    return out


def test_scores_do_not_depend_on_what_was_scored_before(scorer: LikelihoodScorer) -> None:
    for persona, text in STATES:
        found = scorer.score(persona, _ask(text), REPLIES)
        assert found == pytest.approx(_whole(scorer, persona, text), abs=1e-4)
        assert len(set(found)) == 3


def test_the_second_state_of_a_person_costs_less(scorer: LikelihoodScorer) -> None:
    rows: list[int] = []
    scorer.backbone.layers[0].mlp.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[1]))  # type: ignore[index,union-attr]
    for persona, text in (STATES[0], STATES[1]):
        scorer.score(persona, _ask(text), REPLIES)
    longest = len(scorer.group(STATES[1][0], _ask(STATES[1][1]), REPLIES))
    first_bare, first_known, bare, known = rows
    assert first_known > longest - 10 and known < longest - 40
    assert bare < first_bare


def test_no_more_persons_are_kept_than_play_at_once(scorer: LikelihoodScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "KEPT", 3)
    persons = [Persona(f"Person {i}.", "") for i in range(5)]
    for person in (*persons, persons[3]):
        found = scorer.score(person, _ask("tea?"), REPLIES)
        assert found == pytest.approx(_whole(scorer, person, "tea?"), abs=1e-4)
    assert set(scorer._kept) == {None, persons[4], persons[3]}


def test_changed_weights_are_noticed(scorer: LikelihoodScorer) -> None:
    persona, text = STATES[0]
    before = scorer.score(persona, _ask(text), REPLIES)
    with torch.no_grad():
        for name, weight in scorer.backbone.model.named_parameters():
            if "lora_B" in name:
                weight.mul_(-2)
    after = scorer.score(persona, _ask(text), REPLIES)
    assert after == pytest.approx(_whole(scorer, persona, text), abs=1e-4)
    assert after != pytest.approx(before, abs=1e-2)
