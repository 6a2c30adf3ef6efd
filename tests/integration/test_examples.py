"""Every example runs, and is as short as it says."""

from __future__ import annotations

import io
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pamdp
from pamdp.registry import ADVANTAGES, JUDGES, METHODS, load_plugins
from pamdp.testing import check_judge

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("name", sorted(file.name for file in EXAMPLES.glob("*.py")))
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= 30


@pytest.mark.embedded
def test_own_data(tmp_path: Path) -> None:
    """In a process of its own, as a reader runs it; two threads at most."""
    for name in ("own_data.py", "my.jsonl"):
        shutil.copy(EXAMPLES / name, tmp_path)
    found = subprocess.run(
        [sys.executable, "own_data.py"], cwd=tmp_path, capture_output=True, text=True, env={**os.environ},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    assert "Vanilla" in found.stdout and "mine" in found.stdout and "signals" in found.stdout
    assert (tmp_path / "runs" / "mine" / "trained" / "planner.safetensors").is_file()


def test_plugins_register() -> None:
    load_plugins([EXAMPLES / f"add_{what}.py" for what in ("an_advantage", "a_judge", "a_method")])
    assert "clipped" in ADVANTAGES and "Brief" in METHODS and "terse" in JUDGES
    check_judge(JUDGES["terse"](lambda: pytest.fail("it needs no backbone")))


def test_talk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.tools.tiny import make_tiny_backbone

    policy = pamdp.Policy(make_tiny_backbone())
    monkeypatch.setattr(pamdp, "load", lambda source: policy)
    monkeypatch.setattr(sys, "argv", ["talk.py"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello.\nAnd you?\n\n"))
    runpy.run_path(str(EXAMPLES / "talk.py"))
    assert capsys.readouterr().out.count("pamdp: ") == 2
