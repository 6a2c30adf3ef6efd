"""A run is whole from its first moment, says what it was computed from, and counts nothing twice after a kill."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pamdp.errors import ConfigError, RunError
from pamdp.fingerprint import Fingerprint, _commit, environment
from pamdp.runs import Run
from pamdp.settings import Settings, load


class Inner(Settings):
    lr: float = 0.1


class Config(Settings):
    seed: int = 0
    epochs: int = 3
    inner: Inner = Inner()


MARK = Fingerprint(data="d1", model="tiny", revision="r1", judges=({"name": "match", "role": "reward"},))


def scalars_on_the_board(run: Run, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run.path / "tb"))
    board.Reload()
    return [(event.step, event.value) for event in board.Scalars(name)]


def test_a_new_run_says_what_was_asked_and_of_what(tmp_path: Path) -> None:
    config = Config(seed=3)
    run = Run.create(tmp_path / "runs" / "a", config, MARK)
    assert sorted(p.name for p in run.path.iterdir()) == ["config.toml", "fingerprint.json"]
    assert load(Config, [run.path / "config.toml"]) == Run(run.path).config(Config) == config
    record = run.fingerprint()
    assert record == {**MARK.model_dump(mode="json"), "environments": [environment()]}
    assert record["environments"][0]["torch"] == torch.__version__
    assert {"pamdp", "commit", "python", "platform"} < set(record["environments"][0])


def test_a_run_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    Run.create(tmp_path / "a", Config(), MARK)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "x.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("a", "notes", "file"):
        with pytest.raises(RunError, match=r"not empty; continue it with --resume, or choose another name"):
            Run.create(tmp_path / name, Config(), MARK)
    (tmp_path / "empty").mkdir()
    Run.create(tmp_path / "empty", Config(), MARK)


def test_only_a_run_can_be_resumed_or_read(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for name in ("none", "notes"):
        with pytest.raises(RunError, match=r"holds no run \(it has no config\.toml\)"):
            Run.resume(tmp_path / name, Config(), MARK)
    run = Run.create(tmp_path / "a", Config(), MARK)
    (run.path / "fingerprint.json").write_text("{}")
    with pytest.raises(RunError, match=r"fingerprint\.json is damaged"):
        run.fingerprint()


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    Run.create(tmp_path / "a", Config(), MARK)
    other = Config(epochs=5, inner=Inner(lr=0.2))
    with pytest.raises(ConfigError, match=r"epochs was 3, is 5; inner\.lr was 0\.1, is 0\.2"):
        Run.resume(tmp_path / "a", other, MARK)
    with pytest.raises(ConfigError, match=r"settings: inner\.lr was"):
        Run.resume(tmp_path / "a", other, MARK, may_change=["epochs"])
    longer = Config(epochs=5)
    Run.resume(tmp_path / "a", longer, MARK, may_change=["epochs"])
    assert Run(tmp_path / "a").config(Config) == longer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "d2"}, r"data was 'd1', is 'd2'"),
        ({"model": "big", "revision": "r2"}, r"model was 'tiny', is 'big'; revision was 'r1', is 'r2'"),
        ({"pairs": "p2"}, r"pairs was '', is 'p2'"),
        ({"judges": ()}, r"judges was \[\{'name': 'match', .*\}\], is \[\]"),
    ],
)
def test_other_data_models_or_judges_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    Run.create(tmp_path / "a", Config(), MARK)
    with pytest.raises(RunError, match=message):
        Run.resume(tmp_path / "a", Config(), MARK.model_copy(update=change))


def test_a_run_from_before_pairs_were_recorded_goes_on_without_any(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a", Config(), MARK)
    record = {key: value for key, value in run.fingerprint().items() if key != "pairs"}
    (run.path / "fingerprint.json").write_text(json.dumps(record))
    Run.resume(run.path, Config(), MARK)
    with pytest.raises(RunError, match=r"pairs was '', is 'p2'"):
        Run.resume(run.path, Config(), MARK.model_copy(update={"pairs": "p2"}))


def test_another_environment_is_remembered(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a", Config(), MARK)
    Run.resume(run.path, Config(), MARK)
    assert run.fingerprint()["environments"] == [environment()]
    old = {**environment(), "torch": "1.0"}
    record = {**run.fingerprint(), "environments": [old]}
    (run.path / "fingerprint.json").write_text(json.dumps(record))
    Run.resume(run.path, Config(), MARK)
    assert run.fingerprint()["environments"] == [old, environment()]


def test_a_server_that_moved_is_recorded_and_is_no_obstacle(tmp_path: Path) -> None:
    def served(url: str, model: str = "big") -> Fingerprint:
        judge = {"name": "j", "kind": "openai", "model": model, "base_url": url}
        return MARK.model_copy(update={"judges": (judge,)})

    run = Run.create(tmp_path / "a", Config(), served("http://one/v1"))
    for _ in range(2):
        Run.resume(run.path, Config(), served("http://two/v1"))
    record = run.fingerprint()
    assert record["environments"] == [environment(["http://one/v1"]), environment(["http://two/v1"])]
    assert record["judges"][0]["base_url"] == "http://two/v1"  # type: ignore[index, call-overload]
    with pytest.raises(RunError, match=r"'model': 'big'.*'model': 'small'"):
        Run.resume(run.path, Config(), served("http://two/v1", "small"))


def test_what_a_server_refuses_is_noted_and_is_no_obstacle(tmp_path: Path) -> None:
    judges = ({"name": "j", "model": "big", "base_url": "http://one/v1"}, {"name": "k", "model": "big"})
    mark, noted = MARK.model_copy(update={"judges": judges}), ({**judges[0], "refused": "seed"}, judges[1])
    with Run.create(tmp_path / "a", Config(), mark) as run:
        before = run.fingerprint()
        run.note_refused(({**judges[1], "name": "another", "refused": "seed"},))  # none of this run
        assert run.fingerprint() == before
        run.note_refused((noted[0], judges[1]))
        assert run.fingerprint() == {**before, "judges": [*noted]}
        run.note_refused(judges)  # a process that has not found out yet takes nothing back
        assert run.fingerprint()["judges"] == [*noted]
    for later in (mark, mark.model_copy(update={"judges": noted})):
        Run.resume(run.path, Config(), later).close()


def test_rows_arrive_in_the_file_and_on_the_board(tmp_path: Path) -> None:
    with Run.create(tmp_path / "a", Config(), MARK) as run:
        run.log(1, {"loss": 0.5, "kl": float("nan")})
        # Read while it is written: every row is flushed.
        assert run.metrics() == [{"step": 1, "loss": 0.5, "kl": None}]
        run.log(2, {"loss": 0.25})
        run.trace(2, {"user": "émincé 🙂", "action": [0.1, -2.0], "profile": None})
    assert (run.path / "metrics.jsonl").read_text() == (
        '{"step": 1, "loss": 0.5, "kl": null}\n{"step": 2, "loss": 0.25}\n'
    )
    assert run.traces() == [{"step": 2, "user": "émincé 🙂", "action": [0.1, -2.0], "profile": None}]
    assert scalars_on_the_board(run, "loss") == [(1, 0.5), (2, 0.25)]


def test_resuming_at_a_step_forgets_what_came_after_it(tmp_path: Path) -> None:
    with Run.create(tmp_path / "a", Config(), MARK) as run:
        for step in range(6):
            run.log(step, {"loss": step / 8})
            run.trace(step, {"said": step})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    with Run.resume(run.path, Config(), MARK) as again:
        again.rewind(3)
        again.log(4, {"loss": 9.0})
        again.trace(4, {"said": 9})
    assert [(row["step"], row["loss"]) for row in again.metrics()] == [
        (0, 0),
        (1, 1 / 8),
        (2, 2 / 8),
        (3, 3 / 8),
        (4, 9),
    ]
    assert [(row["step"], row["said"]) for row in again.traces()] == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 9)]
    assert scalars_on_the_board(again, "loss") == [(0, 0), (1, 1 / 8), (2, 2 / 8), (3, 3 / 8), (4, 9)]


def test_a_torn_line_is_gone_before_the_next_row(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a", Config(), MARK)
    (run.path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1')
    with Run.resume(run.path, Config(), MARK) as again:
        again.log(2, {"loss": 1.5})
    assert again.metrics() == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]


def test_a_process_killed_while_logging_can_be_resumed(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a", Config(), MARK)
    child = os.fork()
    if child == 0:
        step = 0
        while True:
            run.trace(step, {"text": "x" * 20_000})
            step += 1
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(list(run.path.glob("traces.jsonl"))) == 0:
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with Run.resume(run.path, Config(), MARK) as again:
        rows = [row["step"] for row in again.traces()]
        assert rows == list(range(len(rows))) and len(rows) > 0
        again.trace(len(rows), {"text": "on"})
    assert len(again.traces()) == len(rows) + 1


def _in_another_process(work: Callable[[], object]) -> int:
    """Id of a process that has done WORK and then does nothing until it is killed."""
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            held = work()  # the lock lives as long as this
            os.write(done, b"0" if held is None else b"1")
            signal.pause()
        finally:
            os._exit(0)
    os.close(done)
    assert os.read(ready, 1) == b"1"
    os.close(ready)
    return child


@pytest.mark.parametrize("how", ["resumed", "entered", "logged"])
def test_two_processes_do_not_write_one_run(tmp_path: Path, how: str) -> None:
    run = Run.create(tmp_path / "a", Config(), MARK)

    def work() -> object:
        if how == "resumed":
            return Run.resume(run.path, Config(), MARK)
        return run.__enter__() if how == "entered" else run.log(1, {"loss": 1.0}) or run

    child = _in_another_process(work)
    try:
        before = sorted(path.name for path in run.path.iterdir())
        with pytest.raises(RunError, match=r"a is being written by another process; wait until it ends"):
            Run.resume(run.path, Config(), MARK)
        with pytest.raises(RunError, match="another process"):
            run.log(2, {"loss": 2.0})
        assert sorted(path.name for path in run.path.iterdir()) == before
        assert len(Run(run.path).metrics()) == (how == "logged")  # reading is free
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with Run.resume(run.path, Config(), MARK) as again:
        again.log(2, {"loss": 2.0})


def test_a_closed_run_is_free_for_others(tmp_path: Path) -> None:
    with Run.create(tmp_path / "a", Config(), MARK) as run:
        run.log(1, {"loss": 1.0})
        run.rewind(1)
        with pytest.raises(RunError, match="another process"):
            Run.resume(run.path, Config(), MARK)
    with Run.resume(run.path, Config(), MARK) as again:
        assert [row["step"] for row in again.metrics()] == [1]


def test_the_commit_shows_changed_files(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", "-C", str(tmp_path), *who, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert _commit(tmp_path) is None
    git("init")
    assert _commit(tmp_path) is None
    (tmp_path / "x").write_text("1")
    git("add", "x")
    git("commit", "-m", "one")
    assert _commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "x").write_text("2")
    assert _commit(tmp_path) == git("rev-parse", "HEAD") + "+"
