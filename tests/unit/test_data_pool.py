"""ALOE's pool of personas: users for online verbs, nothing for offline ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from pamdp.config import Config, DataConfig, OnlineConfig
from pamdp.data import is_pool, load_dialogues, load_pool
from pamdp.errors import ConfigError, DataError
from pamdp.reproduce.audit import require_audience
from pamdp.reproduce.config import OnlineReproduceConfig, load_config
from pamdp.reproduce.online import split_online
from pamdp.train.estimate import estimate
from pamdp.train.factory import load_split
from pamdp.train.users import load_users

PROFILES, PERSONALITIES = [f"Keeps {n} bees." for n in range(10)], ["Brief.", "Loud.", "Shy."]


def _pool(folder: Path, profiles: Sequence[str] = PROFILES) -> Path:
    folder.mkdir()
    for name, texts in (("profile", profiles), ("personality", PERSONALITIES)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(t) + "\n" for t in texts), encoding="utf-8")
    return folder


def _config(folder: Path, **data: object) -> Config:
    return Config(data=DataConfig(path=str(folder), **data), online=OnlineConfig(opening="own"))


def test_every_profile_is_a_user_and_the_seed_says_with_which_personality(tmp_path: Path) -> None:
    folder = _pool(tmp_path / "pool")
    once, again, other = (load_pool(folder, seed) for seed in (0, 0, 1))
    assert [d.persona.profile for d in once] == PROFILES and all(d.turns == () for d in once)
    assert once.dialogues == again.dialogues != other.dialogues
    assert {d.persona.personality for d in once} <= set(PERSONALITIES)
    thrice = load_pool(folder, times=3)
    assert thrice.dialogues[: len(PROFILES)] == once.dialogues
    assert len({(d.persona, d.id) for d in thrice}) == 30 and len({d.user_id for d in thrice}) == 10
    with pytest.raises(ConfigError, match=r"has 3 personalities, .* and 4 are asked for; ask for fewer users"):
        load_pool(folder, times=4)


def test_a_pair_stays_when_the_pool_grows(tmp_path: Path) -> None:
    few, more = _pool(tmp_path / "few", PROFILES[:5]), _pool(tmp_path / "more")
    assert load_pool(more).dialogues[:5] == load_pool(few).dialogues


@pytest.mark.parametrize(("train", "test"), [(0, 0), (3, 2), (8, 2), (20, 6), (0, 5)])
def test_as_many_users_as_are_asked_for_and_no_person_on_both_sides(tmp_path: Path, train: int, test: int) -> None:
    config = _config(_pool(tmp_path / "pool"), train_dialogues=train, test_dialogues=test)
    split = load_users(config)
    assert split == load_users(config)
    assert (len(split.train), len(split.test)) == (train or 8, test or 2)
    assert not {d.persona.profile for d in split.train} & {d.persona.profile for d in split.test}
    for part in (split.train, split.test):
        assert len({d.id for d in part}) == len({d.persona for d in part}) == len(part)
        times = Counter(d.user_id for d in part).values()
        assert max(times) - min(times) <= 1  # nobody comes again before all have come
    assert load_users(_config(tmp_path / "pool", split_seed=1)).test != load_users(_config(tmp_path / "pool")).test


def test_users_of_a_pool_begin_by_themselves(tmp_path: Path) -> None:
    folder = _pool(tmp_path / "pool")
    with pytest.raises(ConfigError, match=r"no first message on record; set online\.opening=own"):
        load_users(Config(data=DataConfig(path=str(folder))))
    with pytest.raises(ConfigError, match=r"no topics to make folds of; set data\.folds=0"):
        load_users(_config(folder, folds=2))


@pytest.mark.parametrize("format", ["auto", "aloe"])
def test_where_records_are_read_a_pool_holds_none(tmp_path: Path, format: str) -> None:
    folder = _pool(tmp_path / "pool")
    assert is_pool(folder) and not is_pool(folder / "profile.jsonl") and not is_pool("sample")
    for read in (lambda: load_dialogues(folder, format), lambda: load_split(_config(folder, format=format).data)):
        with pytest.raises(DataError, match=r"a pool of personas, which holds no dialogues .*online\.opening=own"):
            read()


def test_what_it_costs_and_the_online_comparison_know_such_users(tmp_path: Path) -> None:
    folder = _pool(tmp_path / "pool")
    rows = {row.role: row for row in estimate(_config(folder), load_users(_config(folder)).train)}
    assert rows["simulator"].calls == 6 * 8 * 7 and rows["simulator"].prompt_tokens > 0
    settings = [f"data.path={folder}", "online.opening=own", "train_users=4", "test_users=4"]
    config = load_config(OnlineReproduceConfig, "cpu", (), settings)
    split = split_online(config)
    assert (len(split.train), len(split.test)) == (4, 4) and len({d.user_id for d in split.test}) == 2
    with pytest.raises(ConfigError, match="a pool of personas without records"):
        require_audience(config, split.test)


@pytest.mark.shared
def test_the_pool_of_aloe_itself(shared_data: Path) -> None:
    config = _config(shared_data / "aloe", train_dialogues=256, test_dialogues=128)
    with pytest.raises(DataError, match=r"profile\.jsonl:6"):
        load_users(config)
    split = load_users(_config(shared_data / "aloe", train_dialogues=256, test_dialogues=128, skip_bad=True))
    assert (len(split.train), len(split.test), split.repaired) == (256, 128, 1)
    assert not {d.user_id for d in split.train} & {d.user_id for d in split.test}
