"""The sense scorer: it tells two hands apart, sees no person, and adds up with match as its name says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pamdp.errors import ModelError
from pamdp.judges.base import Case
from pamdp.judges.embedded import FILES, NAMES, SUMS, load_judge, save_judges, shipped
from pamdp.judges.likelihood import ADAPTER, LikelihoodHead, LikelihoodScorer
from pamdp.judges.match import MatchHead, MatchScorer
from pamdp.judges.sense import SenseHead, SenseScorer, fit_sense, train_sense
from pamdp.models.adapters import add_adapter
from pamdp.types import History, Message, Persona
from tests.tools.tiny import make_tiny_backbone

TEA: History = (Message("user", "Tea?"),)
SOUP: History = (Message("user", "What should I cook?"),)
NURSE, NOBODY = Persona("A nurse on nights.", "Curt."), Persona()


def _match() -> MatchScorer:
    torch.manual_seed(0)
    backbone = make_tiny_backbone()
    return MatchScorer(backbone, MatchHead(4 * backbone.d, 2 * backbone.d, 4, 2), (1, 2))


def _hands(seed: int, n: int = 200) -> tuple[Tensor, Tensor]:
    """Features of two authors, who differ along the first of six; the second is ten times as wide and says nothing."""
    g = torch.Generator().manual_seed(seed)
    people, model = torch.randn(n, 6, generator=g), torch.randn(n // 2, 6, generator=g)
    people[:, 0] += 2
    return people * torch.tensor([1, 10, 1, 1, 1, 1.0]), model * torch.tensor([1, 10, 1, 1, 1, 1.0])


def test_what_tells_the_hands_apart_is_found() -> None:
    head = SenseHead(6)
    people, model = _hands(0)
    fit_sense(head, people, [model], decay=0.01)
    assert head.weight[0] > 5 * head.weight[1:].abs().max()
    people, model = (head(side) for side in _hands(1))
    assert float((people[:, None] > model).float().mean()) > 0.85


def test_both_sides_weigh_the_same_however_many_they_are() -> None:
    people, model = _hands(0)
    whole, more = SenseHead(6), SenseHead(6)
    fit_sense(whole, people, [model, people], decay=0.01)
    more.whiten.load_state_dict(whole.whiten.state_dict())
    more.whiten.fit = lambda _: None  # type: ignore[method-assign]
    fit_sense(more, people, [model.repeat(5, 1), people], decay=0.01)
    torch.testing.assert_close(whole.weight, more.weight, rtol=1e-2, atol=1e-3)


def test_a_stronger_decay_gives_a_shorter_read_out() -> None:
    norms = []
    for decay in (0.001, 0.1, 10.0):
        head = SenseHead(6)
        people, model = _hands(0)
        fit_sense(head, people, [model], decay=decay)
        norms.append(float(head.weight.norm()))
    assert norms[0] > norms[1] > norms[2]


def test_it_learns_from_texts_and_sees_no_person() -> None:
    people = [(TEA, ["Strong and black.", "With milk, thanks."]), (SOUP, ["Soup, and warm it up."])]
    models = [[(TEA, ["9 9 9 9", "12, 12, 12"])], [(SOUP, ["7 7, 7 7"])]]
    seen = []
    scorer = train_sense(_match(), people, models, progress=seen.append)
    assert seen == [2, 1, 2, 1]
    good, bad = scorer.score(NURSE, TEA, ["Black, thanks.", "9, 12, 9"])
    assert good > bad
    assert scorer.score(NOBODY, TEA, ["Black, thanks.", "9, 12, 9"]) == [good, bad]


def _saved(folder: Path) -> MatchScorer:
    match = _match()
    backbone = match.backbone
    add_adapter(backbone, ADAPTER, 2, 1)
    sense = SenseScorer(match, SenseHead(2 * backbone.d))
    sense.head.weight.fill_(0.5)
    likelihood = LikelihoodScorer(backbone, LikelihoodHead(backbone.d), 1)
    save_judges(folder, match, likelihood, sense, {"match": 2.0, "likelihood": 1.0, "embedded": 1.5, "sense": 4.0})
    return match


def test_what_rewards_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    backbone = _saved(tmp_path / "judges").backbone
    assert sorted(f.name for f in (tmp_path / "judges").iterdir()) == sorted(FILES)
    judges = {name: load_judge(name, backbone, tmp_path / "judges") for name in NAMES}
    scores = {name: judge.scorer.score(NURSE, TEA, ["Black.", "9 9"]) for name, judge in judges.items()}
    assert SUMS["match+sense"] == ("match", "sense")
    expected = [m / 2.0 + s / 4.0 for m, s in zip(scores["match"], scores["sense"], strict=True)]
    assert scores["match+sense"] == pytest.approx(expected, abs=1e-6)
    assert judges["match+sense"].calibration.temperature == 1.0 and judges["embedded"].calibration.temperature == 1.5
    [verdict] = judges["match+sense"].judge([Case(NURSE, TEA, "Black.", "9 9")])
    assert (verdict.p_a > verdict.p_b) == (expected[0] > expected[1])


def test_judges_of_before_it_still_do_without(tmp_path: Path) -> None:
    backbone = _saved(tmp_path / "judges").backbone
    (tmp_path / "judges" / "sense.safetensors").unlink()
    assert load_judge("match", backbone, tmp_path / "judges").name == "match"
    with pytest.raises(ModelError, match="no judge of sense"):
        load_judge("match+sense", backbone, tmp_path / "judges")


def test_the_shipped_judges_are_whole_and_small() -> None:
    assert sorted(f.name for f in shipped().iterdir()) == sorted(FILES)
    assert sum(f.stat().st_size for f in shipped().iterdir()) < 20e6
