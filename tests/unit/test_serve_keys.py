"""Keys are recognised, counted and never stored."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pamdp.errors import ConfigError
from pamdp.serve.callers import belongs, namespaced
from pamdp.serve.keys import Caller, Key, Keys, new_key, read_keys


def test_a_new_key_is_known_by_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    made = {name: new_key(name) for name in ("alice", "b.o-b_1")}
    file.write_text("".join(lines for _, lines in made.values()))
    keys = read_keys(file)
    for name, (secret, lines) in made.items():
        caller = keys.caller(secret)
        assert caller is not None and caller.name == name and not caller.admin and secret not in lines
    assert keys.caller("") is None and keys.caller(made["alice"][0].upper()) is None
    assert made["alice"][0] != new_key("alice")[0] and len(made["alice"][0]) > 40


@pytest.mark.parametrize("name", ["a/b", "a:b", "", "a b", 'x"', "ä", "a" * 65])
def test_names_cannot_be_mistaken_for_users_of_others(name: str) -> None:
    with pytest.raises(ConfigError):
        new_key(name)


@pytest.mark.parametrize(
    "text",
    ["", "[keys]", "[keys.a]\nsha256 = 'zz'", "[keys.a]\nsha25 = ''", "[keys.'a/b']\nsha256 = '" + "0" * 64 + "'"],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_keys(tmp_path / "keys.toml")
    assert "\n" not in str(caught.value)


def test_limits_come_back_with_time() -> None:
    now = [0.0]
    caller = Caller("a", Key(sha256="0" * 64, requests_per_minute=2, concurrent=1), clock=lambda: now[0])
    assert caller.ask() == 0
    now[0] = 20
    assert caller.ask() == 0 and caller.ask() == 40
    now[0] = 59.5
    assert caller.ask() == 0.5
    now[0] = 60
    caller.running = 1
    assert caller.ask() > 0
    caller.running = 0
    assert caller.ask() == 0 and caller.ask() == 20


def test_users_of_keys_are_apart() -> None:
    ids = {namespaced(key, user) for key, user in (("a", None), ("a", "x"), ("b", None), ("b", "x"), ("b", "a"))}
    assert len(ids) == 5 and {id for id in ids if belongs(id, "a")} == {"a", "a:x"}


def test_without_keys_everybody_is_the_owner() -> None:
    caller = Keys().caller("anything")
    assert caller is not None and caller.admin and Keys().open
    assert not Keys({"a": Key(sha256=hashlib.sha256(b"k").hexdigest())}).open
