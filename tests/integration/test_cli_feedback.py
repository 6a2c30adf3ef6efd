"""`pamdp feedback` as an operator meets it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pamdp import cli
from pamdp.serve.store import Feedback, Store
from tests.tools.storing import served

RUN = CliRunner()


def _main(monkeypatch: pytest.MonkeyPatch, *args: str) -> object:
    monkeypatch.setattr(sys, "argv", ["pamdp", *args])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


def _store(key: str | None = None) -> Store:
    store = Store("store.db", key)
    store.served(served())
    store.rate(Feedback("", "shop:ann", "r1", "thumb", 1))
    return store


def test_an_encrypted_store_is_exported_with_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = pytest.importorskip("cryptography.fernet").Fernet.generate_key().decode()
    monkeypatch.chdir(tmp_path)
    _store(key)
    Path("key").write_text(key)
    assert _main(monkeypatch, "feedback", "export", "store.db", "--out", "out") == 1 and not Path("out").exists()
    shown = RUN.invoke(cli.app, ["feedback", "export", "store.db", "--out", "out", "--key-file", "key"])
    assert shown.exit_code == 0 and "data.path=out" in shown.output.replace("\n", "")
    checked = RUN.invoke(cli.app, ["data", "check", "out", "--json"])
    assert checked.exit_code == 0 and json.loads(checked.output)["format"] == "feedback"


def test_mistakes_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _store()
    Path("text").write_text("no store")
    Path("full").mkdir()
    Path("full/mine.txt").write_text("keep")
    for words, told in (
        ("none.db --out out", "there is no store none.db"),
        ("text --out out", "text cannot be opened"),
        ("store.db --out full", "holds 'mine.txt'"),
        ("store.db --out out --layout trl", "no feedback of this kind"),
        ("store.db --out out --key-file none", "holds no key"),
    ):
        assert _main(monkeypatch, "feedback", "export", *words.split()) == 1
        err = capsys.readouterr().err
        assert told in err and err.count("\n") == 1
    assert not Path("out").exists() and Path("full/mine.txt").exists() and not Path("none.db").exists()


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _store()
    for name in [name for name in sys.modules if name.startswith("pamdp.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    assert _main(monkeypatch, "feedback", "export", "store.db", "--out", "out") == 1
    assert "pip install pamdp[serve]" in capsys.readouterr().err
