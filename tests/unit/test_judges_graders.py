"""Who a setting of a judge means: its weights, its server, its backbone; and the ratio that needs no training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pamdp.calls_config import JudgeConfig
from pamdp.errors import ConfigError, ModelError
from pamdp.fingerprint import Fingerprint
from pamdp.judges import from_readings
from pamdp.judges.base import Case
from pamdp.judges.graders import Graders, make_judge, require_fitting
from pamdp.judges.likelihood import RatioScorer
from pamdp.judges.reward_model import ADAPTER, RewardHead, RewardModel
from pamdp.judges.signals import Signals, SignalsScorer
from pamdp.llm.cache import Cached
from pamdp.llm.chat import Decoding
from pamdp.models.adapters import add_adapter
from pamdp.models.backbone import Backbone
from pamdp.prompts.render import load, render
from pamdp.types import History, Persona
from tests.tools.chats import LONE, NURSE
from tests.tools.naive import reply_log_probs
from tests.tools.tiny import make_tiny_backbone

PERSON = Persona("Ana is a nurse who works nights.", "She is brief.")
SERVED = JudgeConfig(kind="openai", model="big", base_url="http://one/v1")


def never() -> Backbone:
    raise AssertionError("a model is loaded")


def test_judges_of_one_name_on_two_servers_are_told_apart(tmp_path: Path) -> None:
    graders = Graders(SERVED.model_copy(update={"urls": {"other": "http://two/v1"}}), never, tmp_path)
    moved = Graders(SERVED.model_copy(update={"base_url": "http://two/v1"}), never, tmp_path)
    one, two = graders.judge("big").fingerprint, moved.judge("big").fingerprint
    assert one != two and {**one, "base_url": ""} == {**two, "base_url": ""}
    assert graders.judge("other").fingerprint["base_url"] == "http://two/v1"
    servers = [Fingerprint(data="d", model="m", revision="r", judges=(x,)).servers for x in (one, two)]
    assert servers == [["http://one/v1"], ["http://two/v1"]]
    # What one answered is not taken for the other's answer.
    first, second = graders.model("big"), moved.model("big")
    assert isinstance(first, Cached) and isinstance(second, Cached)
    assert first.key(LONE, Decoding()) != second.key(LONE, Decoding())


def test_who_grades_is_asked_in_one_order_whatever_rewards(tmp_path: Path) -> None:
    both = SERVED.model_copy(update={"both_orders": True})
    assert Graders(both, never, tmp_path).judge("big").fingerprint["both_orders"] == "False"


def _trained(folder: Path) -> Path:
    """A folder as `pamdp judge train --readings` writes it, for the tiny backbone."""
    backbone = make_tiny_backbone()
    add_adapter(backbone, ADAPTER, 2, 0, 0, 1)
    signals = Signals(backbone.d)
    torch.nn.init.constant_(signals.weight, 0.5)
    model = RewardModel(backbone, RewardHead(2 * backbone.d), 0, 1)
    from_readings.save(folder, model, SignalsScorer(backbone, signals), {"signals": 2.0, "reward-model": 1.0})
    return folder


def test_judges_that_were_trained_for_a_backbone_judge_beside_it(tmp_path: Path) -> None:
    end = JudgeConfig(weights=str(_trained(tmp_path / "judges")))
    require_fitting([end, SERVED, JudgeConfig(model="likelihood-ratio")], "tiny", "0")
    judge = make_judge(end, make_tiny_backbone)
    assert judge.fingerprint["backbone"] == "tiny@0" and judge.name == "signals"
    assert judge.judge([Case(PERSON, LONE, "Tea, I think.", "!")])[0].p_tie < 1
    with pytest.raises(ModelError, match=r"belong to backbone tiny \(0\), not to Qwen/Qwen2.5-7B-Instruct \(a1\)"):
        require_fitting([end], "Qwen/Qwen2.5-7B-Instruct", "a1")
    with pytest.raises(ConfigError, match="none of those that `pamdp judge train` makes"):
        make_judge(JudgeConfig(model="likelihood-ratio", weights="x"), make_tiny_backbone)
    # Beside others in an evaluation, a folder counts for the judges that it can hold.
    assert Graders(end, make_tiny_backbone).judge("likelihood-ratio").name == "likelihood-ratio"


@pytest.mark.parametrize("history", [LONE, NURSE])
def test_the_ratio_is_that_of_two_plain_passes(history: History) -> None:
    backbone = make_tiny_backbone(dtype=torch.float64)
    replies = ["Strong and black, on nights.", "With milk 🙂"]

    def plain(system: str, reply: str) -> float:
        ids = backbone.chat.history(history[-1:], system).ids
        return float(reply_log_probs(backbone, ids, None, backbone.chat.reply(reply)).sum())

    known, anyone = render("judge_for", persona=PERSON.text), load("judge_anyone")
    expected = [plain(known, reply) - plain(anyone, reply) for reply in replies]
    assert RatioScorer(backbone).score(PERSON, history, replies) == pytest.approx(expected, rel=1e-4)
    assert RatioScorer(backbone).score(Persona(), history, replies) == [0, 0]
