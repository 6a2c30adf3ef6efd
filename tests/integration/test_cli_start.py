"""How the command line starts and ends: at once, by either name, with plugins, and with one line for what is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pamdp import cli
from pamdp.config import Config
from pamdp.data import write_dialogues
from pamdp.errors import ConfigError
from pamdp.fingerprint import Fingerprint
from pamdp.launcher_config import LauncherConfig
from pamdp.registry import ADVANTAGES
from pamdp.runs import Run
from pamdp.settings import flatten, load
from tests.tools.cli_docs import ROOT, leaves
from tests.tools.methods import few

RUN = CliRunner()
HEAVY = {"torch", "transformers", "peft", "numpy", "matplotlib", "openai", "gymnasium"}


def _loaded(*commands: list[str]) -> set[str]:
    """Which heavy modules a process has loaded that ran COMMANDS, all of them well."""
    code = (
        "import sys; from pamdp.cli import main\n"
        f"for words in {commands!r}:\n"
        "    sys.argv = ['pamdp', *words]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, (words, end.code)\n"
        "print('loaded:', *sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(shown.stdout.rpartition("loaded:")[2].split()) & HEAVY


def test_help_loads_no_model_library() -> None:
    assert not _loaded(["--help"], *([*verb.split(), "--help"] for verb in leaves()))


def test_a_check_of_data_loads_no_model_library_but_what_a_plugin_does(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "d.jsonl", few("test", 1))
    (tmp_path / "plugin.py").write_text("import numpy")
    check = ["data", "check", str(tmp_path / "d.jsonl")]
    assert not _loaded(check)
    assert _loaded([*check, "--plugin", str(tmp_path / "plugin.py")]) == {"numpy"}


def test_settings_are_shown_without_a_model_library() -> None:
    assert not _loaded(["config", "--config", "paper", "rl.horizon=4"])


@pytest.mark.parametrize("name", ["pamdp", "pamdp.cli"])
def test_the_package_is_a_command(name: str) -> None:
    shown = subprocess.run([sys.executable, "-m", name, "lab", "--help"], capture_output=True, text=True, check=True)
    assert "The theory in numbers" in shown.stdout


@pytest.mark.parametrize("verb", leaves())
def test_every_verb_has_an_example_and_takes_plugins(verb: str) -> None:
    words = verb.split()
    shown = re.sub(r"\s+", " ", RUN.invoke(cli.app, [*words, "--help"]).output)
    assert f"Example: pamdp {verb}" in shown and "--plugin" in shown
    nowhere = RUN.invoke(cli.app, [*words, "--plugin", "nowhere.py"])
    assert isinstance(nowhere.exception, ConfigError) and "nowhere.py: no such file" in str(nowhere.exception)


def test_processes_that_share_the_work_read_the_same_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    for file in files:
        file.write_text(f"from pamdp.registry import ADVANTAGES\nADVANTAGES.add({file.stem!r}, None)\n")
    given: list[object] = []

    def crew(*args: object) -> None:
        given.extend(args)
        raise ConfigError("stop here")

    monkeypatch.setattr("pamdp.reproduce.main.do_missing", crew)
    words = ["--plugin", str(files[0]), "--method", str(files[1]), "--jobs", "2"]
    assert str(RUN.invoke(cli.app, ["reproduce", "table2", *words]).exception) == "stop here"
    assert given[1:] == [2, tuple(files), LauncherConfig()] and {"a", "b"} <= set(ADVANTAGES)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("trian bc", "No such command 'trian'. Did you mean 'train'?"),
        ("train onlin", "No such command 'onlin'. Did you mean 'online', 'offline'?"),
        ("train bc", "Missing option '--run'."),
        ("train bc --rum x", "No such option: --rum"),
        ("reproduce", "Choose from: table2, table3"),
        ("reproduce tabel2", "'tabel2' is not one of 'table2'"),
        ("reproduce table2 --jobs 0", "'--jobs': Input should be greater than or equal to 1"),
    ],
)
def test_options_that_make_no_sense_are_one_line(
    words: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pamdp", *words.split()])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and err.startswith("pamdp: ") and err.count("\n") == 1 and says in err


def test_without_a_verb_there_is_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["pamdp"])
    with pytest.raises(SystemExit):
        cli.main()
    out, err = capsys.readouterr()
    assert "quickstart" in out and err == ""


def test_config_says_what_every_setting_is_and_where_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[rl]\nhorizon = 3\n")
    given = ["--config", "paper", "-c", str(tmp_path / "mine.toml"), "seed=7"]
    machine = RUN.invoke(cli.app, ["config", *given, "--json"], catch_exceptions=False)
    found = {row["key"]: row for row in json.loads(machine.output)}
    assert {key: row["value"] for key, row in found.items()} == json.loads(
        json.dumps(flatten(load(Config, ["paper", str(tmp_path / "mine.toml")], ["seed=7"])))
    )
    assert found["seed"]["value"] == 7 and found["seed"]["default"] == 0 and "seed=7" in found["seed"]["source"]
    assert "mine.toml" in found["rl.horizon"]["source"] and found["online.users"]["source"] == "default"
    assert "the one seed" in found["seed"]["meaning"] and all(
        row["meaning"] and row["allowed"] for row in found.values()
    )
    shown = RUN.invoke(cli.app, ["config", *given], catch_exceptions=False).output
    assert "rl.horizon" in shown and "preset" in shown


def test_config_of_a_run_begins_with_what_it_was_started_with(tmp_path: Path) -> None:
    config = load(Config, (), ["seed=3", "rl.kl=0.5"])
    Run.create(tmp_path / "run", config, Fingerprint(data="d", model="m", revision="r"))
    words = ["config", str(tmp_path / "run"), "--json"]
    for extra, kl in (([], 0.5), (["rl.kl=0.1"], 0.1)):
        found = json.loads(RUN.invoke(cli.app, [*words, *extra], catch_exceptions=False).output)
        values = {row["key"]: row["value"] for row in found}
        assert (values["seed"], values["rl.kl"]) == (3, kl)
    nothing = RUN.invoke(cli.app, ["config", "no-such-run"])
    assert nothing.exit_code == 1 and "no-such-run holds no run" in str(nothing.exception)
