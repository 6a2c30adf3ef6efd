"""A policy that was trained elsewhere stands in for training only where it learned as the other methods do."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from pamdp.config import DataConfig
from pamdp.errors import ConfigError, RunError
from pamdp.evaluation.transcripts import Transcript
from pamdp.reproduce import main
from pamdp.reproduce.config import OnlineReproduceConfig, load_config
from pamdp.reproduce.tables import table
from pamdp.runs import Run
from pamdp.stored import read_records
from pamdp.train.online import provenance_of, read_provenance
from tests.tools.online import TEACH, Bench, T, make_config
from tests.tools.tiny import make_tiny_backbone


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> OnlineReproduceConfig:
    mine = make_config(tmp_path_factory.mktemp("data") / "dialogues.jsonl")
    return mine.model_copy(update={"seeds": (0,), "methods": ("Vanilla", "ODC")})


@pytest.fixture(scope="module")
def here(config: OnlineReproduceConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that trained ODC itself, with two seeds."""
    path = tmp_path_factory.mktemp("here") / "run"
    Bench().run(config.model_copy(update={"seeds": (0, 1)}), "table3", path)
    return path


def _with(config: OnlineReproduceConfig, run: Path | str, **others: object) -> OnlineReproduceConfig:
    return config.model_copy(update={"trained": {"ODC": str(run)}, **others})


def test_it_says_what_it_would_have_said_trained_here(
    config: OnlineReproduceConfig, here: Path, tmp_path: Path
) -> None:
    bench = Bench()
    both = _with(config, here / "seed-{seed}" / "ODC", seeds=(0, 1))
    bench.run(both, "table3", tmp_path / "run")
    assert not any("learns" in said for said in bench.said)
    for seed in (0, 1):
        ours, theirs = (read_records(p / f"seed-{seed}" / "ODC.jsonl", Transcript) for p in (tmp_path / "run", here))
        assert [t.messages for t in ours] == [t.messages for t in theirs]
    found = json.loads((tmp_path / "run" / "table3" / "table3.json").read_text(encoding="utf-8"))
    assert found["calls_in_learning"] == [{"method": "ODC", "simulator": TEACH * T * 2}]


def test_what_it_is_taken_from_may_go_away(config: OnlineReproduceConfig, here: Path, tmp_path: Path) -> None:
    run, path = tmp_path / "odc", tmp_path / "run"
    shutil.copytree(here / "seed-0" / "ODC", run)
    Bench().run(_with(config, run), "table3", path)
    before = (path / "table3" / "table3.json").read_bytes()
    shutil.rmtree(run)
    main.render(Run(path).config(OnlineReproduceConfig), table("table3"), path)
    assert (path / "table3" / "table3.json").read_bytes() == before
    again = Bench()
    again.run(config, "table3", path)
    assert again.said == []


def test_a_comparison_of_an_earlier_version_goes_on_with_the_policy_it_had(
    config: OnlineReproduceConfig, here: Path, tmp_path: Path
) -> None:
    """It copied nothing, and wrote beside the dialogues which policy they are by."""
    path, run, again = tmp_path / "run", here / "seed-0" / "ODC", Bench()
    Bench().run(_with(config, run), "table3", path)
    before = (path / "table3" / "table3.json").read_bytes()
    shutil.rmtree(path / "seed-0" / "ODC")
    given = path / "seed-0" / "ODC.given.json"
    planner = (run / "trained" / "planner.safetensors").read_bytes()
    given.write_text(json.dumps({"run": "elsewhere", "planner": hashlib.sha256(planner).hexdigest()}), encoding="utf-8")
    again.run(_with(config, run), "table3", path)
    assert again.said == [] and (path / "table3" / "table3.json").read_bytes() == before
    shutil.rmtree(path / "seed-0" / "ODC")
    given.write_text(json.dumps({"run": "elsewhere", "planner": "another"}), encoding="utf-8")
    with pytest.raises(RunError, match="choose another --run"):
        again.run(_with(config, run), "table3", path)


def test_a_run_that_is_missing_damaged_or_of_another_start_is_refused(
    config: OnlineReproduceConfig, here: Path, tmp_path: Path
) -> None:
    def refused(run: Path, says: str) -> None:
        with pytest.raises(RunError, match=says):
            Bench().run(_with(config, run), "table3", tmp_path / "other")
        assert not (tmp_path / "other").exists()

    refused(tmp_path / "no-run", "no-run")
    run = here / "seed-0" / "ODC"
    for field, says in (("data", "other data"), ("revision", "other cloned policy")):
        copy = tmp_path / field
        shutil.copytree(run, copy)
        record = json.loads((copy / "fingerprint.json").read_text(encoding="utf-8"))
        (copy / "fingerprint.json").write_text(json.dumps({**record, field: "another"}), encoding="utf-8")
        refused(copy, says)
    silent = tmp_path / "silent"
    shutil.copytree(run, silent)
    (silent / "origin.json").unlink()
    refused(silent, "does not say who taught it")
    (silent / "origin.json").write_text(json.dumps({**read_provenance(run), "policy": "0"}), encoding="utf-8")
    refused(silent, "other cloned policy; train it")
    (silent / "origin.json").write_text("{}", encoding="utf-8")
    refused(silent, "other users to learn from; other cloned policy")
    (silent / "origin.json").write_text("{", encoding="utf-8")
    refused(silent, "does not say who taught it")
    (run_without := tmp_path / "unfinished").mkdir()
    for name in ("config.toml", "fingerprint.json"):
        shutil.copy(run / name, run_without / name)
    refused(run_without, "holds no trained policy")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"seeds": (1,)}, "seed was 0, is 1"),
        ({"seeds": (0, 1)}, "seed was 0, is 1"),
        ({"rl": {"horizon": 1}}, "rl.horizon was 2, is 1"),
        ({"online": {"rounds": 2}}, "online.rounds was 1, is 2"),
        ({"online": {"users": 2}}, "online.users was 3, is 2"),
        ({"online": {"difficulty": "reserved"}}, "other simulator, references or judge"),
        ({"data": {"split_seed": 3}}, "other users to learn from"),
        ({"train_users": 2}, "other users to learn from"),
    ],
)
def test_a_run_that_learned_under_other_conditions_is_refused(
    config: OnlineReproduceConfig, here: Path, tmp_path: Path, changed: dict[str, object], says: str
) -> None:
    update = {
        name: getattr(config, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in changed.items()
    }
    with pytest.raises(RunError, match=says) as error:
        strange = _with(config, here / "seed-0" / "ODC", **update)
        Bench().run(strange, "table3", tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_another_advantage_and_another_judge_are_other_conditions(
    config: OnlineReproduceConfig, here: Path, tmp_path: Path
) -> None:
    run = here / "seed-0" / "ODC"
    other = config.model_copy(update={"methods": ("Vanilla", "PAMDP"), "trained": {"PAMDP": str(run)}})
    with pytest.raises(RunError, match=r"rl\.advantage was 'odc', is 'pamdp'"):
        Bench().run(other, "table3", tmp_path / "run")
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    record = json.loads((copy / "fingerprint.json").read_text(encoding="utf-8"))
    record["judges"][1]["letters"] = "xyz"
    (copy / "fingerprint.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(RunError, match="other simulator, references or judge"):
        Bench().run(_with(config, copy), "table3", tmp_path / "run")


def test_stored_dialogues_are_not_taken_for_those_of_another_policy(
    config: OnlineReproduceConfig, here: Path, tmp_path: Path
) -> None:
    path, run = tmp_path / "run", tmp_path / "odc"
    shutil.copytree(here / "seed-0" / "ODC", run)
    Bench().run(_with(config, run), "table3", path)
    before = (path / "config.toml").read_bytes()
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    Bench().run(_with(config, moved), "table3", path)  # the same policy elsewhere
    planner = here / "seed-1" / "ODC" / "trained" / "planner.safetensors"
    (run / "trained" / "planner.safetensors").write_bytes(planner.read_bytes())
    with pytest.raises(RunError, match="choose another --run"):
        Bench().run(_with(config, run), "table3", path)
    with pytest.raises(RunError, match=r"is of another policy than trained\.ODC"):
        Bench().run(_with(config, run, seeds=(0,)), "table3", here)
    assert (path / "config.toml").read_bytes() == before.replace(str(run).encode(), str(moved).encode())


def test_only_methods_that_learn_can_be_trained_elsewhere() -> None:
    with pytest.raises(ConfigError, match="'Foo' is no method that learns; there are: RL-base"):
        load_config(OnlineReproduceConfig, "cpu", (), ["trained.Foo=runs/foo"])


def test_the_weights_tell_cloned_policies_apart_also_where_every_weight_was_cloned(
    config: OnlineReproduceConfig,
) -> None:
    def digest(change: bool) -> str:
        full = config.model_copy(update={"clone": config.clone.model_copy(update={"backbone": "full"})})
        backbone = make_tiny_backbone()
        policy = Bench().policy(full, backbone)
        if change:
            with torch.no_grad():
                next(backbone.model.parameters()).mul_(1.001)
        return str(provenance_of(policy, ())["policy"])

    assert digest(False) == digest(False) != digest(True)


def test_what_does_not_bear_on_learning_is_no_obstacle(
    config: OnlineReproduceConfig, here: Path, tmp_path: Path
) -> None:
    """Neither data settings that come to the same users, nor how long learning takes, nor a role that is not asked."""
    writer = config.online.writer.model_copy(update={"max_tokens": 7})
    simulator = config.online.simulator.model_copy(update={"concurrency": 1})
    online = config.online.model_copy(update={"groups": 1, "writer": writer, "simulator": simulator})
    data = DataConfig(**{**config.data.model_dump(), "train_dialogues": TEACH})
    Bench().run(_with(config, here / "seed-0" / "ODC", data=data, online=online), "table3", tmp_path / "run")
    assert (tmp_path / "run" / "table3" / "table3.md").is_file()
