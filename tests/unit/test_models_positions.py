"""Histories longer than the model: refused in one line before anything runs, or read without their first turns."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pamdp.config import Config
from pamdp.errors import ConfigError, ModelError
from pamdp.models.backbone import Backbone
from pamdp.models.policy import Policy, path
from pamdp.models.positions import within_positions
from pamdp.train.positions import fitting, require_positions
from pamdp.types import Dialogue, Persona, Turn
from tests.tools.chats import LONE, NURSE, SYSTEM

DIALOGUE = Dialogue(
    "d", "u", Persona("A nurse."), tuple(Turn(f"Question {i}, about soup?", f"Answer {i}.") for i in range(6))
)


def config_of(overflow: str) -> Config:
    config = Config()
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"overflow": overflow}),
            "clone": config.clone.model_copy(update={"max_reply": 8}),
            "rl": config.rl.model_copy(update={"max_reply": 8}),
        }
    )


def policy_of(backbone: Backbone, overflow: str = "refuse") -> Policy:
    return Policy(backbone, system=SYSTEM, config=config_of(overflow))


def shrink(backbone: Backbone, positions: int) -> None:
    backbone.model.config.max_position_embeddings = positions


def test_positions_are_those_of_the_model(tiny_backbone: Backbone) -> None:
    assert tiny_backbone.positions == 2048
    tiny_backbone.model = SimpleNamespace(config=SimpleNamespace(get_text_config=object))
    assert tiny_backbone.positions is None


@pytest.mark.parametrize("spare", [0, 1])
def test_whole_turns_go_from_the_front_and_no_more_than_must(tiny_backbone: Backbone, spare: int) -> None:
    sizes = [len(tiny_backbone.chat.history(NURSE[2 * k :], SYSTEM).ids) for k in range(3)]
    shrink(tiny_backbone, sizes[1] + 10 - spare)
    left = within_positions(tiny_backbone, NURSE, SYSTEM, 10, drop=True)
    assert left == NURSE[2 + 2 * spare :]
    with pytest.raises(ModelError, match=rf"^{sizes[0]} tokens of history and 10 of a reply.*model\.overflow=drop"):
        within_positions(tiny_backbone, NURSE, SYSTEM, 10, drop=False)
    shrink(tiny_backbone, sizes[0] + 10)
    assert within_positions(tiny_backbone, NURSE, SYSTEM, 10, drop=False) is NURSE


def test_a_last_message_that_is_too_long_is_refused_in_any_case(tiny_backbone: Backbone) -> None:
    shrink(tiny_backbone, 12)
    with pytest.raises(ModelError, match="do not fit into the 12 positions of tiny; shorten the dialogues or"):
        within_positions(tiny_backbone, LONE, SYSTEM, 4, drop=True)


def test_no_pass_runs_past_the_positions(tiny_backbone: Backbone) -> None:
    policy = policy_of(tiny_backbone)
    shrink(tiny_backbone, len(tiny_backbone.chat.history(NURSE, SYSTEM).ids) - 1)
    for ask in (policy.prefix, lambda history: policy.prefixes([history])):
        with pytest.raises(ModelError, match="do not fit"):
            ask(NURSE)


def test_recorded_dialogues_lose_first_turns_that_are_counted(
    tiny_backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = policy_of(tiny_backbone, "drop")
    assert fitting(policy, [DIALOGUE]) == (DIALOGUE,) and not capsys.readouterr().err
    shrink(tiny_backbone, 220)
    [kept] = fitting(policy, [DIALOGUE])
    dropped = len(DIALOGUE.turns) - len(kept.turns)
    assert 0 < dropped < 6 and kept == replace(DIALOGUE, turns=DIALOGUE.turns[dropped:])
    assert f"model.overflow=drop: {dropped} first turns" in capsys.readouterr().err
    assert len(policy.prefix(path(kept)).encoded.heads) == len(kept.turns)
    with pytest.raises(ModelError, match="overflow"):
        fitting(policy_of(tiny_backbone), [DIALOGUE])


def test_dialogues_that_may_outgrow_the_model_are_refused_before_they_are_played(tiny_backbone: Backbone) -> None:
    require_positions(policy_of(tiny_backbone), [DIALOGUE], config_of("refuse"))
    shrink(tiny_backbone, 300)
    with pytest.raises(ConfigError, match=r"may need \d+ tokens, and tiny has 300 positions; lower rl\.horizon"):
        require_positions(policy_of(tiny_backbone), [DIALOGUE], config_of("refuse"))
    require_positions(policy_of(tiny_backbone, "drop"), [DIALOGUE], config_of("drop"))


def test_a_long_chat_is_replied_to_without_its_first_turns(make_backbone: Callable[..., Backbone]) -> None:
    policy = policy_of(make_backbone(dtype=torch.float64), "drop")
    shrink(policy.backbone, len(policy.backbone.chat.history(NURSE[2:], SYSTEM).ids) + 13)
    assert policy.reply(list(NURSE), max_tokens=8) == policy.reply(list(NURSE[2:]), max_tokens=8)
    with pytest.raises(ModelError, match="overflow"):
        policy_of(policy.backbone).reply(list(NURSE), max_tokens=8)
