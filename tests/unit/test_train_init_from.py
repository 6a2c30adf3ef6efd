"""Reinforcement starts from what was cloned: nothing that was asked for is dropped without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from pamdp.config import CloneConfig, Config, DataConfig, ModelConfig, RLConfig
from pamdp.errors import ConfigError
from pamdp.train.factory import new_policy, save_policy, shipped
from pamdp.train.init_from import load_start, policy_folder, settings_from
from tests.tools.tiny import make_tiny_backbone

CLONED = Config(
    data=DataConfig(path="mine.jsonl", split_seed=3, skip_bad=True),
    model=ModelConfig(d_a=4, depth=0.5),
    clone=CloneConfig(backbone="frozen"),
    rl=RLConfig(sigma=0.4),
)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    policy = new_policy(make_tiny_backbone(), CLONED)
    assert policy.planner is not None
    policy.planner.actor.sigma.fill_(0.8)
    save_policy(policy, tmp_path / "policy")
    return tmp_path / "policy"


def test_where_it_starts() -> None:
    assert policy_folder("runs/bc") == Path("runs/bc/policy") and policy_folder("shipped") == shipped()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.d_a=8", r"model\.d_a=8 is asked for, but .* was cloned with 4"),
        ("clone.steer=0.5", r"clone\.steer=0\.5 is asked for, but .* was cloned with 1\.0"),
    ],
)
def test_another_model_or_clone_is_refused(start: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        settings_from(start, [], [override])


def test_a_preset_that_asks_for_another_clone_is_refused_by_name(start: Path) -> None:
    with pytest.raises(ConfigError, match=r"clone\.backbone='full' is asked for"):
        settings_from(start, ["paper"], [])


def test_what_was_cloned_is_kept(start: Path) -> None:
    asked = ["data.path=mine.jsonl", "model.d_a=4", "clone.backbone=frozen", "clone.pack_tokens=1", "rl.kl=0.25"]
    found = settings_from(start, ["quickstart"], asked)
    assert (found.model, found.clone, found.data) == (CLONED.model, CLONED.clone, CLONED.data)
    assert found.rl.kl == 0.25 and found.rl.samples == 2


@pytest.mark.parametrize(
    ("overrides", "data"),
    [
        (["data.train_dialogues=5"], CLONED.data.model_copy(update={"train_dialogues": 5})),
        (["data.path=mine.jsonl", "data.folds=2"], CLONED.data.model_copy(update={"folds": 2})),
        (["data.path=other.jsonl"], DataConfig(path="other.jsonl")),
    ],
)
def test_data_settings_are_asked_for_one_by_one(start: Path, overrides: list[str], data: DataConfig) -> None:
    assert settings_from(start, [], overrides).data == data


@pytest.mark.parametrize(("overrides", "sigma"), [([], 0.8), (["rl.sigma=0.4"], 0.8), (["rl.sigma=0.1"], 0.2)])
def test_sigma_is_rescaled(start: Path, overrides: list[str], sigma: float) -> None:
    """Cloned with rl.sigma = 0.4, which came to 0.8 in units of actions."""
    config = settings_from(start, [], overrides)
    policy = load_start(start, make_tiny_backbone(), config)
    assert policy.planner is not None and float(policy.planner.actor.sigma) == pytest.approx(sigma)
    assert config.rl.sigma == pytest.approx(sigma / 2)
