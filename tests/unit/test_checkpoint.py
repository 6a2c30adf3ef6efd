"""A checkpoint is complete or not there, holds no pickle, and training that resumes from it goes on bit for bit."""

import os
import pickle
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pamdp import checkpoint
from pamdp.checkpoint import Tree, latest, load, load_tensors, save, save_tensors
from pamdp.errors import ModelError, RunError


def same(a: object, b: object) -> bool:
    """Equal in values, types and keys; tensors also in dtype and shape."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


class Training:
    """A small training whose every part has state: AdamW with two groups, a schedule, two kinds of random numbers."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        groups = [
            {"params": list(self.net[0].parameters()), "lr": 0.01},
            {"params": list(self.net[2].parameters()), "lr": 0.03, "betas": (0.8, 0.9), "weight_decay": 0.1},
        ]
        self.optimizer = torch.optim.AdamW(groups)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 / (1 + step))
        self.noise = torch.Generator().manual_seed(1)
        self.order = random.Random(2)
        self.step = 0

    def run(self, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            x = torch.randn(5, 3, generator=self.noise) * self.order.random()
            loss = (self.net(x) - x.sum(1, keepdim=True)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            self.step += 1
            losses.append(float(loss.detach()))
        return losses

    def state(self) -> dict[str, Tree]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"last": self.schedule.last_epoch},
            "noise": self.noise.get_state(),
            "order": self.order.getstate(),
        }

    def restore(self, path: Path) -> None:
        found = load(path)
        self.net.load_state_dict(found.weights["net"])
        self.optimizer.load_state_dict(found.state["optimizer"])
        self.schedule.last_epoch = found.state["schedule"]["last"]
        self.noise.set_state(found.state["noise"])
        self.order.setstate(found.state["order"])
        self.step = found.step


def test_resumed_training_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = Training()
    first, last = whole.run(7), whole.run(5)
    killed = Training()
    assert killed.run(7) == first
    save(tmp_path, 7, {"net": killed.net.state_dict()}, killed.state())
    resumed = Training()
    torch.manual_seed(99)
    resumed.restore(latest(tmp_path))
    assert resumed.run(5) == last and resumed.step == 12
    assert same(resumed.state(), whole.state())
    assert same(dict(resumed.net.state_dict()), dict(whole.net.state_dict()))


def test_an_optimizer_state_comes_back_equal(tmp_path: Path) -> None:
    training = Training()
    training.run(3)
    state = training.state()
    found = load(save(tmp_path, 3, {"net": training.net.state_dict()}, state))
    assert same(found.state, state)
    # AdamW counts steps in tensors, and its betas are a tuple.
    assert found.state["optimizer"]["state"][0]["step"].dtype == torch.float32
    assert found.state["optimizer"]["param_groups"][1]["betas"] == (0.8, 0.9)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.lists(st.integers(-5, 5), max_size=3).map(torch.tensor)
    | st.sampled_from(
        [torch.tensor(2.5), torch.zeros(0, 3), torch.ones(2, dtype=torch.bfloat16), torch.arange(6).view(2, 3).T]
    )
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.dictionaries(st.integers(), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(max_size=3), TREES, max_size=3))
def test_any_tree_comes_back_equal(state: dict[str, Tree]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        assert same(load(save(Path(folder), 1, {}, state)).state, state)


def test_dots_in_names_keep_tensors_apart(tmp_path: Path) -> None:
    state = {"a": {"b.c": torch.tensor(1), "b": {"c": torch.tensor(2)}}, "a.b": {"c": torch.tensor(3)}}
    assert same(load(save(tmp_path, 1, {}, state)).state, state)


def test_layout(tmp_path: Path) -> None:
    path = save(tmp_path, 42, {"planner": {"a1": torch.ones(2)}, "critics": {}}, {"epoch": 3})
    assert path == tmp_path / "00000042" == latest(tmp_path)
    assert sorted(p.name for p in path.iterdir()) == [
        "critics.safetensors", "planner.safetensors", "state.json", "state.safetensors",
    ]  # fmt: skip
    found = load(path)
    assert (found.step, found.state) == (42, {"epoch": 3})
    assert list(found.weights) == ["critics", "planner"]


def test_tied_and_strided_weights_are_saved(tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3)
    path = save(tmp_path, 1, {"net": {"embed": weight, "head": weight, "turned": weight.T, "row": weight[1]}}, {})
    found = load(path).weights["net"]
    assert same(found, {"embed": weight, "head": weight, "row": weight[1], "turned": weight.T.contiguous()})
    found["embed"].add_(1)
    assert same(load(path).weights["net"]["embed"], weight)


def test_only_the_last_few_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 99_999_999, 100_000_000, 4):
        save(tmp_path, step, {}, {}, keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000004", "100000000", "99999999"]
    assert latest(tmp_path) == tmp_path / "100000000"
    for step in (5, 6):
        save(tmp_path, step, {}, {}, keep=0)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_step_can_be_saved_again(tmp_path: Path) -> None:
    for value in (1, 2):
        save(tmp_path, 7, {}, {"value": value})
    assert load(latest(tmp_path)).state == {"value": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["00000007"]


def test_a_failed_save_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, {}, {"value": 1})
    with pytest.raises(TypeError, match=r"optimizer\.hook: a checkpoint cannot hold a"):
        save(tmp_path, 2, {"net": {"w": torch.ones(1)}}, {"optimizer": {"hook": object()}})
    assert [p.name for p in tmp_path.iterdir()] == ["00000001"]


def test_what_is_not_a_checkpoint_is_not_seen(tmp_path: Path) -> None:
    assert latest(tmp_path / "none") is None
    (tmp_path / ".part-00000009.1").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "00000008").write_text("a file")
    assert latest(tmp_path) is None
    save(tmp_path, 3, {}, {})
    assert latest(tmp_path) == tmp_path / "00000003"
    assert not (tmp_path / ".part-00000009.1").exists()


def test_a_process_killed_while_saving_leaves_whole_checkpoints(tmp_path: Path) -> None:
    weights = {"net": {f"w{i}": torch.full((200, 200), float(i)) for i in range(10)}}
    for round_ in range(4):
        child = os.fork()
        if child == 0:
            step = 1000 * round_
            while True:
                step += 1
                save(tmp_path, step, weights, {"step": step, "round": round_}, keep=2)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and (latest(tmp_path) or Path("0")).name <= f"{1000 * round_:08d}":
            time.sleep(0.01)
        time.sleep(0.013 * round_)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = load(latest(tmp_path))
        assert found.state == {"step": found.step, "round": round_}
        assert same(found.weights, weights)


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 1, {}, {})
    (path / name).write_bytes((path / name).read_bytes()[:-2])
    with pytest.raises(RunError, match="00000001 is not a whole checkpoint"):
        load(path)
    (path / name).unlink()
    with pytest.raises(RunError, match="00000001 is not a whole checkpoint"):
        load(path)


def test_pickle_is_never_read(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "boom"),)

    for name in ("planner.pt", "planner.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ModelError, match=r"not a safetensors file .*refused"):
            load_tensors(tmp_path / name)
    torch.save({"w": torch.ones(1)}, tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="refused"):
        load_tensors(tmp_path / "weights.bin")
    assert not (tmp_path / "boom").exists()
    assert "import pickle" not in Path(checkpoint.__file__).read_text()


def test_tensors_by_themselves(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", {"w": torch.ones(2, requires_grad=True)})
    assert same(load_tensors(tmp_path / "x.safetensors"), {"w": torch.ones(2)})
    with pytest.raises(ModelError, match=r"no file .*y\.safetensors"):
        load_tensors(tmp_path / "y.safetensors")


def test_a_group_cannot_take_the_states_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="state"):
        save(tmp_path, 1, {"state": {}}, {})
