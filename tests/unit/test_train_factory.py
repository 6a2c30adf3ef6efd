"""A policy is built or refused: actions can only shift hidden states between two layers; data are counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pamdp.config import CloneConfig, Config, DataConfig, ModelConfig
from pamdp.data import write_dialogues
from pamdp.errors import ConfigError, ModelError
from pamdp.reproduce.cells import Cell, split_of, users_of
from pamdp.reproduce.config import ReproduceConfig
from pamdp.train.factory import load_split, new_policy
from pamdp.workflows import fingerprint_of, tell_skipped
from tests.tools.methods import few
from tests.tools.tiny import make_tiny_backbone


def _config(depth: float, steer: float) -> Config:
    return Config(model=ModelConfig(d_a=4, depth=depth), clone=CloneConfig(backbone="frozen", steer=steer))


@pytest.mark.parametrize(
    ("depth", "where"), [(1.0, "the last layer"), (0.9, "the last layer"), (0.0, "the embeddings")]
)
def test_steering_where_nothing_can_be_shifted_is_refused(depth: float, where: str) -> None:
    with pytest.raises(ConfigError, match=f"reads {where}.*set a depth between 0 and 1.*or clone.steer=0"):
        new_policy(make_tiny_backbone(), _config(depth, steer=8.0))
    policy = new_policy(make_tiny_backbone(), _config(depth, steer=0.0))
    assert policy.planner is not None and policy.planner.steering is None


def test_steering_between_two_layers_is_built() -> None:
    policy = new_policy(make_tiny_backbone(), _config(0.5, steer=8.0))
    assert policy.readout.layer == 1
    assert policy.planner is not None and policy.planner.steering is not None
    assert policy.planner.steering.shape == (4, 32)


@pytest.mark.parametrize("layer", [-1, 0])
def test_a_backbone_refuses_to_shift_where_there_is_no_layer(layer: int) -> None:
    backbone = make_tiny_backbone()
    with backbone.steering(layer, None):
        pass
    with pytest.raises(ModelError, match=f"layer {layer} cannot"), backbone.steering(layer, backbone.embed_ids([1])):
        pass


def test_bad_records_that_are_left_out_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "d.jsonl"
    write_dialogues(path, few("train", 3))
    tell_skipped(load_split(DataConfig(path=str(path))))
    assert capsys.readouterr().err == ""
    with path.open("a", encoding="utf-8") as file:
        file.write('{"turns": []}\nno JSON\n')
    split = load_split(DataConfig(path=str(path), skip_bad=True, test_dialogues=1))
    assert (split.skipped, split.repaired) == (2, 0) and len(split.train) + len(split.test) == 3
    tell_skipped(split)
    err = capsys.readouterr().err
    assert "2 bad records were left out" in err and err.count("\n") == 1
    cell = Cell("aloe", "tiny", DataConfig(path=str(path), skip_bad=True), tmp_path / "cell")
    cut = split_of(cell, ReproduceConfig(), 0, make_tiny_backbone().chat)
    assert cut.skipped == 2 and users_of(cut)["skipped"] == 2
    print_ = fingerprint_of(split, make_tiny_backbone())
    assert (print_.skipped, print_.compared["skipped"]) == (2, 2)


def test_what_was_merged_and_whom_nobody_knows_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "d.jsonl"
    said = [{"role": role, "content": role} for role in ("system", "user", "user", "assistant")]
    path.write_text(f"{json.dumps({'messages': said})}\n{json.dumps({'messages': said, 'profile': 'Ann bakes.'})}\n")
    split = tell_skipped(load_split(DataConfig(path=str(path))))
    assert split.repaired == 4 and users_of(split)["repaired"] == 4
    counted, impersonal = capsys.readouterr().err.splitlines()
    assert counted == ("pamdp: data: system messages left out: 2; messages of one speaker in a row joined: 2")
    assert impersonal.startswith("pamdp: data: 1 of 2 have no profile and no personality: no judge can tell there")
