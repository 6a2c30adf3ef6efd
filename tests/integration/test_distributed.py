"""Two processes learn what one does: losses, gradients, weights, replies; checkpoints and journals pass between both.

Gloo connects them on the CPU; what only GPUs could show (NCCL, speed, memory) is not here.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pamdp.checkpoint import load_tensors
from pamdp.cli import app
from pamdp.files import Json
from pamdp.runs import Run
from tests.tools.distributed import CASES, cloned, interrupted, launch, reinforced, steps, talked
from tests.tools.tiny import make_tiny_backbone

SETTINGS = (
    "model.device=cpu", "model.depth=0.5", "data.path=plain", "data.train_dialogues=4", "data.test_dialogues=2",
    "clone.epochs=1", "clone.batch_size=3", "clone.max_reply=12", "clone.backbone=full",
)  # fmt: skip
PORT = ("--main_process_port", "0")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind; one of them had begun a run."""
    folder = tmp_path_factory.mktemp("two")
    interrupted(folder / "one-two", "lora")
    ended = launch(["tests.tools.distributed", str(folder)])
    assert ended.returncode == 0, ended.stderr[-4000:]
    return folder


def _close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], share: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.linalg.vector_norm(value - theirs[name]) <= share * torch.linalg.vector_norm(value), name


@pytest.mark.parametrize(("kind", "backbone"), CASES)
def test_steps_of_two_processes_have_the_losses_and_gradients_of_one(two: Path, kind: str, backbone: str) -> None:
    """Three examples a step, so that one process has more to do; a parameter without a gradient has none either way."""
    ours, theirs = load_tensors(two / f"{kind}-{backbone}.safetensors"), steps(backbone)
    assert sum(".gradient." in name for name in theirs) > (3 if backbone == "frozen" else 30)
    _close(ours, theirs, 1e-4 if backbone == "packed" else 1e-5)  # products with more rows end in other digits


@pytest.mark.parametrize(("run", "backbone"), [("two", "lora"), ("one-two", "lora"), ("two-one", "full")])
def test_runs_of_one_and_two_processes_end_the_same(two: Path, tmp_path: Path, run: str, backbone: str) -> None:
    """And those that two interrupted and one ended, or the other way round; the former was sharded."""
    cloned(tmp_path / "one", backbone)
    if run == "two-one":
        cloned(two / run, backbone)
    for file in sorted((tmp_path / "one" / "policy").glob("*.safetensors")):
        _close(load_tensors(two / run / "policy" / file.name), load_tensors(file), 1e-4)
    _same_rows(Run(two / run).metrics(), Run(tmp_path / "one").metrics())


def test_what_goes_wrong_with_one_goes_wrong_with_both(two: Path) -> None:
    assert sorted(path.name for path in two.glob("*-[01]")) == ["other-0", "other-1", "stopped-0", "stopped-1"]


@pytest.mark.parametrize(("file", "said"), [("ddp.yaml", "replicas (DDP)"), ("fsdp2.yaml", "shards (FSDP2)")])
def test_the_examples_files_run_through_accelerate(tmp_path: Path, file: str, said: str) -> None:
    """On the CPU, with two processes; all else is as they have it."""
    tiny = make_tiny_backbone()
    for part in (tiny.model, tiny.tokenizer):
        part.save_pretrained(tmp_path / "model")
    settings = [f"model.name={tmp_path / 'model'}", *SETTINGS]
    launcher = ("accelerate.commands.launch", "--config_file", f"examples/{file}", "--num_processes", "2")
    ended = launch(["pamdp", "train", "bc", "--run", str(tmp_path / "two"), *settings], (*launcher, *PORT))
    assert ended.returncode == 0 and said in ended.stderr, ended.stderr[-4000:]
    assert ended.stdout.count("cloned into") == 1
    app(["train", "bc", "--run", str(tmp_path / "one"), *settings], standalone_mode=False)
    for stored in sorted((tmp_path / "one" / "policy").glob("*.safetensors")):
        _close(load_tensors(tmp_path / "two" / "policy" / stored.name), load_tensors(stored), 1e-4)


def test_only_the_first_process_writes(two: Path) -> None:
    rows = Run(two / "two").metrics()
    assert [row["step"] for row in rows if "nll" in row] == list(range(1, 5))
    assert {path.name for path in (two / "two").iterdir()} == {
        "config.toml", "fingerprint.json", "metrics.jsonl", "tb", "checkpoints", "policy", "lock",
    }  # fmt: skip


def test_rollouts_of_two_processes_are_those_of_one(two: Path, tmp_path: Path) -> None:
    for name, learn in (("offline", reinforced), ("online", talked)):
        learn(tmp_path / name)
        ours, theirs = Run(two / name), Run(tmp_path / name)
        _same_rows(ours.traces(), theirs.traces())
        _same_rows(ours.metrics(), theirs.metrics())
    costs = [json.loads((path / "online" / "costs.json").read_text(encoding="utf-8")) for path in (two, tmp_path)]
    assert costs[0] == costs[1] and not list((two / "online" / "journal").iterdir())
    assert not list((two / "online").glob("costs-*.json"))


def test_a_round_of_two_of_whom_one_was_killed_is_ended_by_one(tmp_path: Path) -> None:
    ended = launch(["tests.tools.distributed", str(tmp_path / "killed"), "killed"])
    assert ended.returncode != 0
    journals = sorted(path.name for path in (tmp_path / "killed" / "journal").iterdir())
    assert journals == ["00000001-1.jsonl", "00000001.jsonl"]
    paid = [json.loads((tmp_path / "killed" / name).read_text()) for name in ("costs.json", "costs-1.json")]
    for path in ("killed", "whole"):
        talked(tmp_path / path)
    _same_rows(Run(tmp_path / "killed").traces(), Run(tmp_path / "whole").traces())
    spent, needed = (json.loads((tmp_path / name / "costs.json").read_text()) for name in ("killed", "whole"))
    for role, entry in needed.items():
        before = sum(cost.get(role, {"calls": 0})["calls"] for cost in paid)
        assert max(entry["calls"], before) <= spent[role]["calls"], role
    assert not list((tmp_path / "killed").glob("costs-*.json"))


def _same_rows(ours: list[dict[str, Json]], theirs: list[dict[str, Json]]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name, value in b.items():
            if isinstance(value, (float, list)):
                assert a[name] == pytest.approx(value, rel=1e-3, abs=1e-4), (name, a, b)
            else:
                assert a[name] == value, (name, a, b)
