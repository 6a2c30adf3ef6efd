"""What cannot be done by workers is refused in one line, before anything is loaded; never is it done here instead."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

import pamdp
from pamdp.cli import app
from pamdp.config import MAY_CHANGE, Config
from pamdp.engines.vllm import require_engine
from pamdp.errors import ConfigError
from pamdp.launcher_config import LauncherConfig
from pamdp.models import embedded
from pamdp.ray_launcher import RayLauncher
from pamdp.settings import load
from pamdp.sites import Sent, launched, offline_site
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
        ("quickstart --run {path}/run engine.kind=vllm", "quickstart has replies written by transformers"),
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

    with pytest.raises(ConfigError, match=r"use_engine\) has replies written by transformers"):
        pamdp.clone(None, (), settings={"engine.kind": "vllm"})  # type: ignore[arg-type]


def test_several_processes_have_no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would start one of its own, on the same card, and wait for the others inside it."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"engine\.kind=vllm runs in one process, and 2 were started"):
        require_engine(load(Config, (), ["engine.kind=vllm"]))


def test_workers_are_told_outright_what_means_something_else_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "planner.safetensors").write_bytes(b"weights")
    asked = load(Config, (), ["cache=answers", "judge.weights=judges", "model.name=clone", "model.device=cpu"])
    sent = Sent.of(asked, Path("clone"), [Path("mine.py")])
    config = sent.config
    assert (config.cache, config.judge.weights) == (str(tmp_path / "answers"), str(tmp_path / "judges"))
    assert config.model.name == str(tmp_path / "clone") and config.model.dtype in ("float32", "bfloat16")
    assert sent.plugins == [tmp_path / "mine.py"] and sent.policy == {"planner.safetensors": b"weights"}
    assert Sent.of(load(Config, (), ["model.device=cpu"]), Path("clone")).config.judge.weights == ""


def test_what_stays_here_reads_nothing_for_workers() -> None:
    def read() -> Sent:
        raise AssertionError("a policy was read that nobody is sent")

    with launched(LauncherConfig(), offline_site, read) as launcher:
        assert launcher is None


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'pip install "pamdp\[ray\]"'):
        RayLauncher(LauncherConfig(kind="ray"), partial(site_of, Config(), None, None))


class _Silent:
    """Ray's package where no cluster answers."""

    def is_initialized(self) -> bool:
        return False

    def init(self, **_: object) -> None:
        raise ConnectionError("ray client connection timeout")


@pytest.mark.parametrize(
    ("address", "mode", "said"),
    [
        ("ray://far:10001", "", r"timeout; where the cluster asks for a token: set RAY_AUTH_MODE=token$"),
        ("ray://far:10001", "token", r"timeout$"),
        ("auto", "", r"^launcher\.address=auto: Ray cannot be reached: ray client connection timeout$"),
    ],
)
def test_a_cluster_that_does_not_answer_is_said_with_what_may_help(
    address: str, mode: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", _Silent())  # type: ignore[arg-type]
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(ConfigError, match=said):
        RayLauncher(LauncherConfig(kind="ray", address=address), partial(site_of, Config(), None, None))


def test_settings_that_cannot_be_are_refused() -> None:
    for override in ("launcher.kind=spark", "launcher.workers=0", "launcher.gpus_per_worker=-1"):
        with pytest.raises(ConfigError, match=override.split("=")[0]):
            load(Config, (), [override])


def test_who_does_the_work_may_change_when_a_run_goes_on() -> None:
    assert {f"launcher.{name}" for name in LauncherConfig.model_fields} <= set(MAY_CHANGE)
