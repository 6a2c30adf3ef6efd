"""Action controls: another user is somebody else, and what cannot be measured is left out with a word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from pamdp.config import CloneConfig, Config, ModelConfig, RLConfig
from pamdp.errors import JudgeError
from pamdp.evaluation.offline_eval import action_controls, others_actions, write_replies
from pamdp.evaluation.records import Control
from pamdp.judges.base import Case, Judge, Verdict
from pamdp.train.factory import new_policy
from pamdp.types import Dialogue
from tests.tools.methods import VowelJudge, few
from tests.tools.tiny import make_tiny_backbone

CONFIG = Config(model=ModelConfig(d_a=4, depth=0.5), clone=CloneConfig(backbone="frozen"), rl=RLConfig(max_reply=4))


class Mute(VowelJudge):
    """Never decides."""

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        raise JudgeError("no verdict")


def _controls(dialogues: Sequence[Dialogue], judges: Sequence[Judge]) -> list[Control]:
    policy = new_policy(make_tiny_backbone(), CONFIG)
    own = write_replies(policy, dialogues, CONFIG.rl)
    return action_controls(policy, dialogues, judges, CONFIG.rl, own, "BC")


def _of(users: str) -> list[Dialogue]:
    [dialogue] = few("test", 1)
    return [replace(dialogue, id=f"d{i}", user_id=user) for i, user in enumerate(users)]


@pytest.mark.parametrize(
    ("users", "others"),
    [("abcd", [2, 3, 0, 1]), ("abc", [1, 2, 0]), ("abab", [3, 0, 1, 2]), ("aaab", [3, 3, 3, 1])],
)
def test_another_users_action_is_another_users(users: str, others: list[int]) -> None:
    dialogues = _of(users)
    actions = {(d.id, t): torch.tensor([float(i), float(t)]) for i, d in enumerate(dialogues) for t in range(2)}
    found = others_actions(dialogues, actions)
    assert found is not None
    assert {key: action.tolist() for key, action in found.items()} == {
        (f"d{i}", t): [float(other), float(t)] for i, other in enumerate(others) for t in range(2)
    }


def test_one_user_has_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    rows = _controls(_of("aa"), [VowelJudge()])
    assert {row.name for row in rows} == {"BC: own action − the mean action"}
    err = capsys.readouterr().err
    assert "all test dialogues are one user's" in err and err.count("\n") == 1


def test_a_judge_without_a_verdict_costs_its_own_rows_only(capsys: pytest.CaptureFixture[str]) -> None:
    rows = _controls(few("test", 2), [Mute("mute"), VowelJudge()])
    assert [row.judge for row in rows] == ["vowels", "reference NLL"] * 2
    assert capsys.readouterr().err.count("(mute)") == 2


def test_data_without_preferred_replies_have_no_likelihood() -> None:
    silent = [replace(d, turns=(replace(d.turns[0], preferred=None),)) for d in few("test", 2)]
    assert {row.judge for row in _controls(silent, [VowelJudge()])} == {"vowels"}
