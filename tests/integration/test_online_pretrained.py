"""A policy that was trained elsewhere stands in for training only where it learned as the other methods do."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from pamdp.config import DataConfig
from pamdp.errors import ConfigError, RunError
from pamdp.evaluation.transcripts import read_talks
from pamdp.models.backbone import Backbone
from pamdp.models.policy import Policy
from pamdp.reproduce.online import main
from pamdp.reproduce.online.config import OnlineReproduceConfig, load_online_config
from pamdp.train.provenance import provenance_of, read_provenance
from tests.tools.online import TEACH, Bench, T, make_config


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> OnlineReproduceConfig:
    mine = make_config(tmp_path_factory.mktemp("data") / "dialogues.jsonl")
    return mine.model_copy(update={"seeds": (0,), "methods": ("Vanilla", "ODC")})


@pytest.fixture(scope="module")
def here(config: OnlineReproduceConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that trained ODC itself, with two seeds."""
    path = tmp_path_factory.mktemp("here") / "run"
    main.reproduce_online(config.model_copy(update={"seeds": (0, 1)}), "table3", path, Bench().tools)
    return path


def _with(config: OnlineReproduceConfig, run: Path | str, **others: object) -> OnlineReproduceConfig:
    return config.model_copy(update={"trained": {"ODC": str(run)}, **others})


def test_it_says_what_it_would_have_said_trained_here(
    config: OnlineReproduceConfig, here: Path, tmp_path: Path
) -> None:
    bench = Bench()
    both = _with(config, here / "seed-{seed}" / "ODC", seeds=(0, 1))
    main.reproduce_online(both, "table3", tmp_path / "run", bench.tools)
    assert not any("learns" in said for said in bench.said)
    for seed in (0, 1):
        ours, theirs = (read_talks(path / f"seed-{seed}" / "ODC.jsonl") for path in (tmp_path / "run", here))
        assert [t.messages for t in ours] == [t.messages for t in theirs]
    found = json.loads((tmp_path / "run" / "table3" / "table3.json").read_text(encoding="utf-8"))
    assert found["calls_in_learning"]["ODC"]["simulator"] == TEACH * T * 2


def test_calls_of_a_run_that_seeds_share_are_counted_once(
    config: OnlineReproduceConfig, here: Path, tmp_path: Path
) -> None:
    """No page of such a run is made any more; what is rendered of an older one counts what was called."""
    main.reproduce_online(_with(config, here / "seed-0" / "ODC"), "table3", tmp_path / "run", Bench().tools)
    for folder in ("seed-0", "graded"):
        for file in (tmp_path / "run" / folder).rglob("*.jsonl"):
            text = file.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 1')
            twin = tmp_path / "run" / str(file.relative_to(tmp_path / "run")).replace("seed-0", "seed-1")
            twin.parent.mkdir(exist_ok=True)
            twin.write_text(text, encoding="utf-8")
    shared = _with(config, here / "seed-0" / "ODC", seeds=(0, 1))
    found = json.loads(main.render_online(shared, "table3", tmp_path / "run").json)
    assert found["calls_in_learning"]["ODC"]["simulator"] == TEACH * T


def test_a_run_that_is_missing_damaged_or_of_another_start_is_refused(
    config: OnlineReproduceConfig, here: Path, tmp_path: Path
) -> None:
    def refused(run: Path, says: str) -> None:
        with pytest.raises(RunError, match=says):
            main.reproduce_online(_with(config, run), "table3", tmp_path / "other", Bench().tools)
        assert not (tmp_path / "other").exists()

    refused(tmp_path / "no-run", "no-run")
    run = here / "seed-0" / "ODC"
    for field, says in (("data", "other data"), ("revision", "another cloned policy")):
        copy = tmp_path / field
        shutil.copytree(run, copy)
        record = json.loads((copy / "fingerprint.json").read_text(encoding="utf-8"))
        (copy / "fingerprint.json").write_text(json.dumps({**record, field: "another"}), encoding="utf-8")
        refused(copy, says)
    silent = tmp_path / "silent"
    shutil.copytree(run, silent)
    (silent / "origin.json").unlink()
    refused(silent, "does not say which users taught it")
    (silent / "origin.json").write_text(json.dumps({**asdict(read_provenance(run)), "policy": "0"}), encoding="utf-8")
    refused(silent, "another cloned policy")
    (silent / "origin.json").write_text("{}", encoding="utf-8")
    refused(silent, "is damaged")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"seeds": (1,)}, "seed was 0, is 1"),
        ({"seeds": (0, 1)}, "seed was 0, is 1"),
        ({"rl": {"horizon": 1}}, "rl.horizon was 2, is 1"),
        ({"online": {"rounds": 2}}, "online.rounds was 1, is 2"),
        ({"online": {"users": 2}}, "online.users was 3, is 2"),
        ({"online": {"difficulty": "reserved"}}, "its users, references or judge were others"),
        ({"data": {"split_seed": 3}}, "users that test here"),
        ({"train_users": 2}, "not the 2 of the other methods"),
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
        main.reproduce_online(strange, "table3", tmp_path / "run", Bench().tools)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_another_advantage_and_another_judge_are_other_conditions(
    config: OnlineReproduceConfig, here: Path, tmp_path: Path
) -> None:
    run = here / "seed-0" / "ODC"
    other = config.model_copy(update={"methods": ("Vanilla", "PAMDP"), "trained": {"PAMDP": str(run)}})
    with pytest.raises(RunError, match=r"rl\.advantage was 'odc', is 'pamdp'"):
        main.reproduce_online(other, "table3", tmp_path / "run", Bench().tools)
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    record = json.loads((copy / "fingerprint.json").read_text(encoding="utf-8"))
    record["judges"][1]["letters"] = "xyz"
    (copy / "fingerprint.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(RunError, match="its users, references or judge were others"):
        main.reproduce_online(_with(config, copy), "table3", tmp_path / "run", Bench().tools)


def test_stored_dialogues_are_not_taken_for_those_of_another_policy(
    config: OnlineReproduceConfig, here: Path, tmp_path: Path
) -> None:
    path, run = tmp_path / "run", tmp_path / "odc"
    shutil.copytree(here / "seed-0" / "ODC", run)
    main.reproduce_online(_with(config, run), "table3", path, Bench().tools)
    before = (path / "config.toml").read_bytes()
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    main.reproduce_online(_with(config, moved), "table3", path, Bench().tools)  # the same policy elsewhere
    with pytest.raises(RunError, match="another policy that was trained elsewhere said"):
        main.reproduce_online(config, "table3", path, Bench().tools)
    planner = here / "seed-1" / "ODC" / "trained" / "planner.safetensors"
    (run / "trained" / "planner.safetensors").write_bytes(planner.read_bytes())
    with pytest.raises(RunError, match="choose another --run"):
        main.reproduce_online(_with(config, run), "table3", path, Bench().tools)
    with pytest.raises(RunError, match="a policy that was trained here said"):
        main.reproduce_online(_with(config, moved, seeds=(0,)), "table3", here, Bench().tools)
    assert (path / "config.toml").read_bytes() == before.replace(str(run).encode(), str(moved).encode())


def test_only_methods_that_learn_can_be_trained_elsewhere() -> None:
    with pytest.raises(ConfigError, match="'Foo' is no method that learns; there are: RL-base"):
        load_online_config("cpu", (), ["trained.Foo=runs/foo"])


def test_the_weights_tell_cloned_policies_apart_also_where_every_weight_was_cloned(
    config: OnlineReproduceConfig,
) -> None:
    def digest(change: bool) -> str:
        full = config.model_copy(update={"clone": config.clone.model_copy(update={"backbone": "full"})})
        backbone: Backbone = Bench().tools.load("tiny")
        policy: Policy = Bench().tools.policy(full, backbone)
        if change:
            with torch.no_grad():
                next(backbone.model.parameters()).mul_(1.001)
        return provenance_of(policy, (), "full").policy

    assert digest(False) == digest(False) != digest(True)


def test_data_settings_that_come_to_the_same_users_are_no_obstacle(
    config: OnlineReproduceConfig, here: Path, tmp_path: Path
) -> None:
    data = DataConfig(**{**config.data.model_dump(), "train_dialogues": TEACH})
    main.reproduce_online(_with(config, here / "seed-0" / "ODC", data=data), "table3", tmp_path / "run", Bench().tools)
    assert (tmp_path / "run" / "table3" / "table3.md").is_file()
