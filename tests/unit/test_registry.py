"""Names: what is registered is found, what is not is refused with a list, and plugins add to what there is."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from pamdp import registry
from pamdp.config import Config
from pamdp.errors import ConfigError
from pamdp.registry import REGISTRIES, Registry, load_plugins
from pamdp.settings import load


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Registry[str]:
    monkeypatch.setattr(registry, "_loaded", {registry.GROUP})
    return Registry("colour", {"red": "tests.unit.test_registry"})


def test_what_is_added_is_found(own: Registry[str]) -> None:
    assert own("blue")("B") == "B" == own["blue"]
    assert list(own) == ["red", "blue"] and "green" not in own
    own.add("blue", "C")
    assert own["blue"] == "C" and list(own) == ["red", "blue"]


@pytest.mark.parametrize("name", ["", " blue", "blue "])
def test_a_name_needs_letters(own: Registry[str], name: str) -> None:
    with pytest.raises(ConfigError, match="blanks"):
        own.add(name, "B")


def test_an_unknown_name_lists_what_there_is(own: Registry[str]) -> None:
    with pytest.raises(ConfigError, match=r"no colour 'rde'; did you mean 'red'\? there are: red; --plugin FILE\.py"):
        own["rde"]
    with pytest.raises(ConfigError, match=r"no colour 'blue'; there are: red"):
        own.require("blue")


def test_every_own_name_is_registered_by_its_module() -> None:
    for kind in REGISTRIES:
        for name in kind._own:
            assert kind[name] is not None


def test_a_file_registers_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_loaded", {registry.GROUP})
    file = tmp_path / "plugin.py"
    file.write_text(
        "from pamdp.rl.advantages import register_advantage\n"
        "@register_advantage('mine', oracle_target='full')\ndef mine(b): return b.reward\n"
        f"open({str(tmp_path / 'log')!r}, 'a').write('x')\n"
    )
    with pytest.raises(ConfigError, match=r"rl\.advantage: no advantage 'mine'; there are: a2c, uaac, dcrl, pamdp"):
        load(Config, (), ["rl.advantage=mine"])
    load_plugins([file, file])
    assert load(Config, (), ["rl.advantage=mine"]).rl.advantage == "mine"
    assert (tmp_path / "log").read_text() == "x"
    with pytest.raises(ConfigError, match=r"nowhere\.py: no such file"):
        load_plugins([Path("nowhere.py")])


def test_entry_points_are_read_when_a_name_is_missing(own: Registry[str], monkeypatch: pytest.MonkeyPatch) -> None:
    point = SimpleNamespace(value="some.module", load=lambda: own.add("green", "G"))
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == registry.GROUP else [])
    monkeypatch.setattr(registry, "_loaded", set())
    assert "red" in own and registry.GROUP not in registry._loaded
    assert own["green"] == "G" and list(own) == ["red", "green"]


def test_a_broken_entry_point_is_named(own: Registry[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise ImportError("no module some")

    monkeypatch.setattr(registry, "entry_points", lambda group: [SimpleNamespace(value="some.module", load=load)])
    monkeypatch.setattr(registry, "_loaded", set())
    with pytest.raises(ConfigError, match=r"some\.module cannot be loaded: no module some"):
        own.require("green")
