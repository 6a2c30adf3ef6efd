"""What stands beside a policy's weights: whom it learned from, who may test it, and what is said of a damaged file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pamdp.config import CloneConfig, Config, DataConfig, ModelConfig
from pamdp.data import load_plain, load_sample
from pamdp.errors import RunError
from pamdp.train.factory import load_policy, new_policy, save_policy, shipped
from pamdp.train.policy_metadata import read_metadata, require_unseen
from tests.tools.methods import few
from tests.tools.tiny import make_tiny_backbone

CONFIG = Config(
    data=DataConfig(path="mine.jsonl"), model=ModelConfig(d_a=4, depth=0.5), clone=CloneConfig(backbone="frozen")
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    one, two = few("train", 2)
    learned = [two, one, replace(one, id="again")]
    policy = new_policy(make_tiny_backbone(), CONFIG)
    save_policy(replace(policy, users=frozenset(d.user_id for d in learned)), tmp_path / "policy")
    return tmp_path / "policy"


def test_users_are_noted_each_once(folder: Path) -> None:
    about = read_metadata(folder)
    assert about.users == tuple(sorted(d.user_id for d in few("train", 2))) and about.config == CONFIG
    assert load_policy(folder, make_tiny_backbone()).planner is not None


def test_who_was_learned_from_may_not_test(folder: Path) -> None:
    both, strangers = few("train", 2), few("test", 3)
    require_unseen(strangers, [folder])
    with pytest.raises(RunError, match=rf"learned from 1 of 4 test users \({both[1].user_id}\); split as it did") as e:
        require_unseen([*strangers, both[1]], [folder])
    assert str(folder) in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(RunError, match="no policy in"):
        require_unseen(strangers, [folder, folder.with_name("none")])


def test_nobody_whom_the_shipped_policies_learned_from_may_test() -> None:
    for what in ("policy", "trained"):
        require_unseen(load_plain("test").dialogues, [shipped(what)])
        with pytest.raises(RunError, match=r"learned from 740 of 740 test users \(\S+, \S+, \S+ and 737 more\)"):
            require_unseen(load_plain("train").dialogues, [shipped(what)])
    with pytest.raises(RunError, match="learned from 160 of 160 test users"):
        require_unseen(load_plain("rl").dialogues, [shipped("trained")])


def test_policies_from_before_users_were_noted_are_read(folder: Path) -> None:
    """Whom those of the sample learned from, the sample itself says."""
    old = json.loads((folder / "config.json").read_text())
    del old["users"]
    (folder / "config.json").write_text(json.dumps(old))
    require_unseen(few("train", 2), [folder])  # its data are nobody's guess
    old["config"]["data"]["path"] = "sample"
    (folder / "config.json").write_text(json.dumps(old))
    require_unseen(load_sample("test").dialogues, [folder])
    with pytest.raises(RunError, match="learned from 96 of 96 test users"):
        require_unseen(load_sample("train").dialogues, [folder])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is damaged"),
        ('{"base_model": "tiny", "revi', "is damaged"),
        ("[]", "damaged or of another version"),
        ('{"base_model": "tiny", "revision": "0", "system": "s"}', "config: Field required"),
        (
            '{"base_model": "tiny", "revision": "0", "system": "s", "config": {"clone": {"posterior": 1}}}',
            "config.clone.posterior: Extra inputs",
        ),
    ],
)
def test_a_damaged_or_older_file_is_named(folder: Path, content: str, says: str) -> None:
    (folder / "config.json").write_text(content)
    for read in (read_metadata, lambda where: load_policy(where, make_tiny_backbone())):
        with pytest.raises(RunError, match=says) as error:
            read(folder)
        assert str(folder / "config.json") in str(error.value) and "train the policy again" in str(error.value)
