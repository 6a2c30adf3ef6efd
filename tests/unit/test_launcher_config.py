"""What cannot be done by workers is refused in one line, before anything is loaded; never is it done here instead."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

import pamdp
from pamdp.cli import app
from pamdp.config import MAY_CHANGE, Config
from pamdp.errors import ConfigError
from pamdp.launcher_config import LauncherConfig
from pamdp.models import embedded
from pamdp.ray_launcher import RayLauncher
from pamdp.settings import load
from tests.tools.launching import site_of


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*_: object) -> None:
        raise AssertionError("a model was loaded before the refusal")

    monkeypatch.setattr(embedded, "load_backbone", loaded)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("train bc --run {path}/run launcher.kind=ray", "cloning runs in this process only"),
        ("quickstart --run {path}/run launcher.kind=ray", "quickstart runs in this process only"),
        ("judge eval --pairs sample launcher.kind=ray", "judge eval runs in this process only"),
        ("reproduce simulator --run {path}/run launcher.kind=ray", "the audit of simulated users runs in this process"),
        ("reproduce table2 --jobs 2 --run {path}/run launcher.kind=ray", "set launcher.workers, or leave out ray"),
    ],
)
def test_what_workers_cannot_do_is_refused(command: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        app(command.format(path=tmp_path).split(), standalone_mode=False)
    assert not (tmp_path / "run").exists()


def test_python_calls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="called from Python runs in this process only"):
        pamdp.clone(None, (), settings={"launcher.kind": "ray"})  # type: ignore[arg-type]


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'pip install "pamdp\[ray\]"'):
        RayLauncher(LauncherConfig(kind="ray"), partial(site_of, Config(), None, None))


def test_settings_that_cannot_be_are_refused() -> None:
    for override in ("launcher.kind=spark", "launcher.workers=0", "launcher.gpus_per_worker=-1"):
        with pytest.raises(ConfigError, match=override.split("=")[0]):
            load(Config, (), [override])


def test_who_does_the_work_may_change_when_a_run_goes_on() -> None:
    assert {f"launcher.{name}" for name in LauncherConfig.model_fields} <= set(MAY_CHANGE)
