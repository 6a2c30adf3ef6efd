"""One of several processes by itself: what it may do, what it says, and how rollouts of parts become one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import pamdp
from pamdp import ranks
from pamdp.cli import main
from pamdp.env.dialogue import DialogueEnv
from pamdp.env.reward import Reward
from pamdp.errors import ConfigError, ModelError
from pamdp.models.generate import Sampling
from pamdp.models.place import place_of
from pamdp.place_config import PlaceConfig
from pamdp.progress import Progress, note
from pamdp.rollout import collect
from pamdp.runs import Follower
from pamdp.shards import deal, merged
from pamdp.train.parallel import require_launch
from pamdp.transitions import Rollout, to_batch
from tests.tools.learning import make_dialogues, make_learning, make_policy, make_world


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process is the second of two."""
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_merged_rollouts_are_one_worker_s(groups: int) -> None:
    """Transitions and states in its order, with dialogues that the horizon cuts off."""
    config = make_learning()
    policy, world, dialogues = make_policy(config), make_world(config), make_dialogues()

    def play(part: object) -> Rollout:
        reward = Reward(world.judge, lambda steps: [["Have a tea."] for _ in steps])
        users = [world.user(d, 7) for d in dialogues if d in part]  # type: ignore[operator]
        return collect(policy, DialogueEnv(users, reward, 2), Sampling(4), privileged={}, seed=7, groups=groups)

    whole, keys = play(dialogues), [world.user(d, 7).key for d in dialogues]
    found = merged([play(part) for part in deal(dialogues, 3)], keys, groups)
    named = [[(t.key, t.t, t.k, t.reply, t.reward) for t in rollout.transitions] for rollout in (found, whole)]
    assert named[0] == named[1] and len(named[0]) == 2 * len(dialogues)
    for name in ("moments", "features_h", "features_hw"):
        assert list(getattr(found, name)) == list(getattr(whole, name)), name
    assert torch.allclose(to_batch([found]).h, to_batch([whole]).h, atol=1e-5)


def test_a_verb_for_one_process_says_so_once(
    second: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    second.setattr(sys, "argv", ["pamdp", "eval", str(tmp_path)])
    slept = list[float]()
    second.setattr("time.sleep", slept.append)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1 and slept  # by then the launcher has ended it, since the first process has
    second.setenv("RANK", "0")
    with pytest.raises(SystemExit):
        main()
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("pamdp: process 1: ") for line in lines] == [True, False]
    assert all("`pamdp eval" in line and "2 were started" in line for line in lines)
    with pytest.raises(ConfigError, match="one process"):
        pamdp.evaluate({}, ())


def test_processes_beside_the_first_are_silent(second: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        note("hello")
        with Progress("work", 10, share=True) as bar:
            for _ in range(6):
                bar.advance()
        assert bar.done == 10  # all are taken to be as fast as this one
        assert capsys.readouterr().err.count("hello") == int(ranks.rank() == 0)
        second.setenv("RANK", "0")


def test_each_process_takes_the_gpu_of_its_number(second: pytest.MonkeyPatch) -> None:
    second.setattr(torch.cuda, "is_available", lambda: True)
    second.setattr(torch.cuda, "device_count", lambda: 2)
    second.setattr("pamdp.models.place._lacks_bfloat16", lambda device: "")
    for device in ("auto", "cuda"):
        assert str(place_of(PlaceConfig(device=device, dtype="float32")).device) == "cuda:1"
    with pytest.raises(ModelError, match="set device=cuda"):
        place_of(PlaceConfig(device="cuda:0"))
    second.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ModelError, match="no GPU of its own"):
        place_of(PlaceConfig(device="auto"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("ACCELERATE_MIXED_PRECISION", "bf16"), ("ACCELERATE_USE_DEEPSPEED", "true"), ("FSDP_OFFLOAD_PARAMS", "true"),
     ("FSDP_VERSION", "1")],
)  # fmt: skip
def test_what_accelerate_cannot_have_is_refused(second: pytest.MonkeyPatch, name: str, value: str) -> None:
    second.setenv("ACCELERATE_USE_FSDP", "true")
    second.setenv("FSDP_VERSION", "2")
    require_launch("none")
    with pytest.raises(ConfigError, match="cannot be sharded"):
        require_launch("4bit")
    second.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        require_launch("none")
    second.setenv("WORLD_SIZE", "1")
    require_launch("none")


def test_what_follows_a_run_has_a_row_where_nothing_was_left_to_do(tmp_path: Path) -> None:
    """As a command ends: with the last row, on every process."""
    run = Follower(tmp_path)
    assert run.metrics()[-1] == {}
    run.log(1, {"loss": 0.5}, "clone")
    assert run.metrics() == [{"step": 1, "stage": "clone", "loss": 0.5}]
