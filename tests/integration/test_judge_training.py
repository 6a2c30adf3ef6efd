"""All embedded judges from a few pairs and dialogues, written and read again: `pamdp judge train` in small."""

from __future__ import annotations

from pathlib import Path

import pytest

from pamdp.config import Config
from pamdp.data import load_sample, load_sample_pairs
from pamdp.judges.base import Case
from pamdp.judges.embedded import NAMES, load_judge, save_judges
from pamdp.judges.training import SENSE, train_judges
from pamdp.models.policy import Policy
from pamdp.train.offline import drawn_replies
from tests.tools.tiny import make_tiny_backbone


@pytest.mark.filterwarnings("ignore")
def test_judges_are_trained_written_and_read_again(tmp_path: Path) -> None:
    backbone = make_tiny_backbone()
    pairs, dialogues = load_sample_pairs("train").pairs[:24], load_sample("train").dialogues[:2]
    config = Config().model_copy(update={"rl": Config().rl.model_copy(update={"samples": 2, "max_reply": 6})})
    drawn = drawn_replies(Policy(backbone), dialogues, config)
    assert {history for history, _ in drawn} == {d.history(t) for d in dialogues for t in range(len(d.turns))}
    assert all(len(replies) == 2 for _, replies in drawn)
    match, likelihood, sense, temperature = train_judges(backbone, pairs, dialogues, [drawn, drawn[:3]], epochs=1)
    assert set(temperature) == {"match", "likelihood", "sense", "embedded"} and temperature["sense"] == SENSE
    turn = dialogues[0].turns[0]
    [said, *_] = dict(drawn)[dialogues[0].history(0)]
    assert turn.preferred
    scores = sense.score(dialogues[0].persona, dialogues[0].history(0), [turn.preferred, said])
    assert scores[0] > scores[1]
    save_judges(tmp_path / "judges", match, likelihood, sense, temperature)
    case = Case(pairs[0].persona, pairs[0].history, pairs[0].preferred, pairs[0].rejected)
    for name in NAMES:
        [verdict] = load_judge(name, backbone, tmp_path / "judges").judge([case])
        assert verdict.p_a + verdict.p_b + verdict.p_tie == pytest.approx(1)
