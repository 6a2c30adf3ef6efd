"""A layout of one's own: named by a plugin's decorator, then known to loading, checking, recognising and settings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from pamdp import registry
from pamdp.config import Config
from pamdp.data import load_dialogues, load_pairs, register_layout
from pamdp.data.check import check
from pamdp.data.fields import name_for
from pamdp.errors import ConfigError, DataError
from pamdp.registry import LAYOUTS, load_plugins
from pamdp.settings import load
from pamdp.types import Dialogue, Message, Persona, PreferencePair, Turn

PLUGIN = """
from pamdp.data import register_layout
from pamdp.types import Dialogue, Persona, Turn

@register_layout("mine", detect=lambda record: "talk" in record)
def mine(record):
    if record["who"] == "nobody":
        raise ValueError("nobody talks to\\nnobody")
    turns = tuple(Turn(said["ask"], said["good"], said.get("bad")) for said in record["talk"])
    return Dialogue(record.get("id", ""), "", Persona(record["who"]), turns)
"""


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_loaded", {registry.GROUP})
    (tmp_path / "plugin.py").write_text(PLUGIN)
    load_plugins([tmp_path / "plugin.py"])


def talk(**changes: object) -> dict[str, object]:
    return {
        "who": " Ann bakes. ",
        "talk": [{"ask": "Hi", "good": "Hello ", "bad": "Yo"}, {"ask": "Bye", "good": "So"}],
    } | changes


def write(folder: Path, *records: object, name: str = "talks.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_a_plugin_is_read_like_the_packages_own_layouts(tmp_path: Path) -> None:
    path = write(tmp_path, talk(), talk(id="d"))
    loaded = load_dialogues(path)
    turns = (Turn("Hi", "Hello", "Yo"), Turn("Bye", "So"))
    assert loaded.format == "mine" and loaded == load_dialogues(path, "mine")
    assert list(loaded) == [
        Dialogue(name, name_for("Ann bakes."), Persona("Ann bakes."), turns) for name in ("talks:1", "d")
    ]
    (pair, _) = load_pairs(path)
    assert pair == PreferencePair("talks:1/0", Persona("Ann bakes."), (Message("user", "Hi"),), "Hello", "Yo")
    report = check(path)
    assert (report.format, report.dialogues, report.turns, report.labelled_turns) == ("mine", 2, 4, 2) and report.ok
    assert load(Config, (), ["data.format=mine"]).data.format == "mine"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"talk": []}, "`who` is missing"),
        (talk(talk=[]), "`turns` is a list of 0"),
        (talk(talk=[{"good": "x"}]), "`ask` is missing"),
        (talk(talk=[{"ask": "x", "good": ""}]), "`turns`, item 1, `preferred` is empty"),
        (talk(talk=[{"ask": 3, "good": "x"}]), "`turns`, item 1, `user` is a number where a text belongs"),
        (talk(talk=3), "the layout 'mine' cannot read it: 'int' object is not iterable"),
        (talk(who="nobody"), "the layout 'mine' cannot read it: nobody talks to nobody"),
        ([1], "the record is a list where a JSON object belongs"),
        (talk(id="one"), "the id 'one' occurs twice"),
    ],
)
def test_what_it_cannot_read_is_placed_or_skipped(record: object, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, talk(id="one"), record, talk())
    with pytest.raises(DataError, match=message) as caught:
        load_dialogues(path)
    assert str(caught.value).startswith(f"{path}:2: ") and "\n" not in str(caught.value) and caught.value.fix
    loaded = load_dialogues(path, skip_bad=True)
    assert len(loaded) == 2 and [error.line for error in loaded.skipped] == [2]
    assert len(check(path).problems) == 1


def test_it_is_asked_before_the_packages_own_layouts(tmp_path: Path) -> None:
    assert load_dialogues(write(tmp_path, talk(conversations=[], turns=[]))).format == "mine"


def test_pairs_arrays_tables_and_lists(tmp_path: Path) -> None:
    class Choice(BaseModel):
        ask: str
        options: list[str]

    @register_layout("choices", detect=lambda record: "options" in record, gives="pairs", shape="array")
    def choices(record: object) -> list[PreferencePair]:
        found = Choice.model_validate(record)
        ask = (Message("user", found.ask),)
        return [
            PreferencePair(f"{found.ask}:{worse}", Persona(), ask, found.options[0], worse)
            for worse in found.options[1:]
        ]

    @register_layout("rows", detect=lambda header: header == "who,said", shape="table")
    def rows(cells: list[str]) -> Dialogue:
        return Dialogue("", cells[0], Persona(), (Turn(cells[1]),))

    path = tmp_path / "a.json"
    path.write_text(
        json.dumps([{"ask": "Tea?", "options": ["Yes", "No", "Oh"]}, {"ask": "Tea?", "options": ["Yes", 3]}])
    )
    loaded = load_pairs(path, skip_bad=True)
    assert [pair.rejected for pair in loaded] == ["No", "Oh"] and loaded.format == "choices"
    assert "`options`, item 2 is a number where a text belongs" in str(loaded.skipped[0])
    assert check(path, skip_bad=True).pairs == 2
    with pytest.raises(DataError, match=r"layout 'choices', which holds no dialogues \(load_pairs reads it\)"):
        load_dialogues(path)
    (tmp_path / "b.csv").write_text("who,said\nann,Hi\n")
    assert [d.user_id for d in load_dialogues(tmp_path / "b.csv")] == ["ann"]


def test_a_layout_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gives dialogues or pairs, of lines, array, table; not 'texts' of 'lines'"):
        register_layout("odd", detect=bool, gives="texts")
    with pytest.raises(ConfigError, match="of 'xml'"):
        register_layout("odd", detect=bool, shape="xml")


def test_a_layout_that_is_not_there_is_refused_with_a_list(tmp_path: Path) -> None:
    for read in (load_dialogues, load_pairs, check):
        with pytest.raises(ConfigError, match=r"no layout 'min'; did you mean 'mine'\? there are: aloe, .*, mine"):
            read(write(tmp_path, talk()), "min")


@pytest.mark.parametrize("read", [load_dialogues, load_pairs])
def test_the_own_layouts_hold_what_they_say(read: Callable[[Path, str], object], tmp_path: Path) -> None:
    kind = read.__name__.removeprefix("load_")
    for name in LAYOUTS:
        with pytest.raises(DataError, match=r"the file is empty|there is no|not a JSON|holds no") as caught:
            read(write(tmp_path), name)
        assert ("which holds no" in str(caught.value)) == (kind not in LAYOUTS[name].makes)


def test_whoever_only_reads_data_does_not_wait_for_models_and_figures() -> None:
    heavy = ("torch", "transformers", "matplotlib", "numpy", "rich", "openai", "typer")
    code = f"import sys, pamdp.data.check; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
