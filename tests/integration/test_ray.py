"""Two workers of a Ray cluster give what one process gives: whatever dies, nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from pamdp.checkpoint import load_tensors
from pamdp.config import Config
from pamdp.errors import ConfigError, RunError
from pamdp.evaluation.offline_eval import evaluate, write_replies
from pamdp.files import Json
from pamdp.launch import Tell
from pamdp.launcher_config import LauncherConfig
from pamdp.llm.limits import Limiter
from pamdp.models.policy import Policy
from pamdp.ray_launcher import RayLauncher
from pamdp.reproduce.work import do_missing
from pamdp.runs import Run
from pamdp.train.offline import offline
from pamdp.train.site import Site
from tests.tools.launching import WORKERS, make_site, site_of
from tests.tools.learning import PRINT, learn, make_dialogues, make_learning, make_policy, make_world
from tests.tools.methods import VowelJudge, few
from tests.unit.test_reproduce_page import _Work as Pieces
from tests.unit.test_shards import make_offline

ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "pamdp[ray]"')
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """One small Ray for all tests."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process learns."""
    path = tmp_path_factory.mktemp("alone") / "run"
    config = make_learning()
    learn(path, config, make_dialogues(), make_world(config))
    return path


def _learn(path: Path, dies: tuple[int, Path] | None = None) -> None:
    config = make_learning()
    world = make_world(config)
    with RayLauncher(WORKERS, partial(site_of, config, dies, None), world.ledger) as launcher:
        learn(path, config, make_dialogues(), world, launcher)


def _said(path: Path) -> list[dict[str, Json]]:
    return [{k: x for k, x in t.items() if k not in ("action", "value_h", "value_hw")} for t in Run(path).traces()]


def _require_same(path: Path, alone: Path) -> None:
    assert _said(path) == _said(alone)
    ours, theirs = (load_tensors(p / "trained" / "planner.safetensors") for p in (path, alone))
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, atol=1e-5, rtol=0)


def test_learning_online_is_the_same_and_so_are_its_costs(tmp_path: Path, alone: Path, cluster: None) -> None:
    _learn(tmp_path / "run")
    _require_same(tmp_path / "run", alone)
    assert (tmp_path / "run" / "costs.json").read_bytes() == (alone / "costs.json").read_bytes()
    assert not list((tmp_path / "run" / "journal").iterdir())


def test_a_worker_that_is_killed_costs_nothing(
    tmp_path: Path, alone: Path, cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    _learn(tmp_path / "run", (4, tmp_path / "killed"))
    assert (tmp_path / "killed").exists() and "died; another one does again" in capsys.readouterr().err
    _require_same(tmp_path / "run", alone)


def test_a_driver_that_is_killed_goes_on(tmp_path: Path, alone: Path, cluster: None) -> None:
    path = tmp_path / "run"
    command = [sys.executable, "-m", "tests.tools.launching", str(path), "9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env={**os.environ, "RAY_ADDRESS": ""}, timeout=600)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    stored = (path / "journal" / "00000000.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(stored) == 9
    _learn(path)
    _require_same(path, alone)


def test_learning_offline_is_the_same_to_the_byte_where_parts_and_threads_are(tmp_path: Path, cluster: None) -> None:
    config = make_offline()

    def trained(path: Path, launcher: RayLauncher[Site] | None = None) -> dict[str, torch.Tensor]:
        with Run.create(path, config, PRINT) as run:
            policy = offline(make_policy(config), few("train", 6), VowelJudge(), config, run, launcher=launcher)
            return dict(policy.trained_planner.state_dict())

    one = trained(tmp_path / "one")
    with RayLauncher(WORKERS, partial(site_of, config, None, None)) as launcher:
        two = trained(tmp_path / "two", launcher)
    assert Run(tmp_path / "one").traces() == Run(tmp_path / "two").traces()
    assert all(torch.equal(two[name], weights) for name, weights in one.items())


def test_an_evaluation_is_the_same(tmp_path: Path, cluster: None) -> None:
    config, dialogues = make_offline(), few("test", 5)
    site = make_site(config, Limiter())
    policies = {"Vanilla": Policy(site.policy.backbone, readout=site.policy.readout), "BC": site.policy}
    with RayLauncher(WORKERS, partial(site_of, config, None, None)) as launcher:
        for name, each in (("one", None), ("two", launcher)):
            replies = {who: write_replies(p, dialogues, config.rl, launcher=each) for who, p in policies.items()}
            (tmp_path / name).mkdir()
            evaluate(replies, [("BC", "Vanilla")], dialogues, [VowelJudge()], [], tmp_path / name, launcher=each)
    one, two = ((tmp_path / name / "judgements.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two


def test_limits_are_the_cluster_s(tmp_path: Path, cluster: None) -> None:
    config, notes = make_learning(), tmp_path / "notes"
    world = make_world(config)
    with RayLauncher(WORKERS, partial(site_of, config, None, notes), world.ledger) as launcher:
        learn(tmp_path / "run", config, make_dialogues(), world, launcher)
    lines = [line.split() for line in notes.read_text(encoding="utf-8").splitlines()]
    assert len({pid for _, pid in lines}) == 2  # both workers asked
    assert [what for what, _ in lines] == ["begins", "ends"] * (len(lines) // 2)  # and never at the same time
    assert all(a == b for (_, a), (_, b) in zip(lines[::2], lines[1::2], strict=True))


def _dies(site: Site, shared: None, item: None, tell: Tell) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _refuses(site: Site, shared: None, item: int, tell: Tell) -> int:
    if item == 1:
        raise ConfigError("number one cannot be done")
    return item


def test_work_that_kills_every_worker_is_given_up_and_errors_are_one_line(cluster: None) -> None:
    with RayLauncher(WORKERS, partial(site_of, make_learning(), None, None)) as launcher:
        with pytest.raises(RunError, match="3 workers died at the same work"):
            launcher.map(_dies, None, [lambda: None])
        with pytest.raises(ConfigError, match=r"^number one cannot be done$"):
            launcher.map(_refuses, None, [lambda n=n: n for n in range(3)])
        assert launcher.map(_refuses, None, [lambda n=n: n for n in (0, 2, 4)]) == [0, 2, 4]


class _Grid(Pieces):
    """Pieces that write who did them; workers give it what puts limits around chat models."""

    def __init__(self, path: Path, said: list[str], limiter: Limiter | None = None) -> None:
        super().__init__(path, said)


def test_the_cells_of_a_comparison_are_done_by_workers(tmp_path: Path, cluster: None) -> None:
    said = list[str]()
    do_missing(partial(_Grid, tmp_path / "run", said), launcher=WORKERS)
    by = {file.name: int(file.read_text(encoding="utf-8")) for file in (tmp_path / "run").iterdir()}
    assert by["a"] == by["b"] != os.getpid() and by["c"] == os.getpid()
    assert said == ["done: a", "done: b", "c"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (LauncherConfig(kind="ray", workers=3), r"launcher\.workers=3 need 3 CPUs, and the cluster has 2"),
        (LauncherConfig(kind="ray", workers=1, gpus_per_worker=1), r"need 1 GPUs, and the cluster has 0"),
    ],
)
def test_more_workers_than_the_cluster_has_places_for_are_refused(
    config: LauncherConfig, said: str, cluster: None
) -> None:
    with pytest.raises(ConfigError, match=said):
        RayLauncher(config, partial(site_of, Config(), None, None))
