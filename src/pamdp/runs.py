"""A run directory: what was asked (config.toml), of what (fingerprint.json), and what came of it (metrics, traces).

Owns creating, resuming and rewinding a run, its append-only logs, and that one process at a time writes there. Knows
nothing of checkpoints, models or training. TensorBoard's tb/ is a view on metrics.jsonl, rebuilt on resume.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

from pydantic import ValidationError
from torch.utils.tensorboard import SummaryWriter

from pamdp.errors import ConfigError, RunError
from pamdp.files import Json, json_line, lock, new_folder, read_json_lines, sweep, write_atomic, write_json
from pamdp.fingerprint import NUMBERS, REFUSED, Fingerprint, environment
from pamdp.settings import Settings, dump, flatten, load

S = TypeVar("S", bound=Settings)


class Run:
    """One directory. Reading needs no more than the path; `create` and `resume` give a run that can be written.

    Whoever resumes, enters or logs holds the run until `close` or until the process dies; any number may read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._files: dict[str, IO[str]] = {}
        self._board: SummaryWriter | None = None
        self._lock: IO[str] | None = None

    @classmethod
    def create(cls, path: str | Path, config: Settings, fingerprint: Fingerprint) -> Self:
        """A new run, there with config and fingerprint or not at all; a RunError where something is there already."""
        run = cls(path)
        if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
            raise RunError(f"{run.path} is not empty; continue it with --resume, or choose another name")
        with new_folder(run.path) as folder:
            (folder / "config.toml").write_text(dump(config), encoding="utf-8")
            record = fingerprint.model_dump(mode="json") | {"environments": [environment(fingerprint.servers)]}
            (folder / "fingerprint.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        return run

    @classmethod
    def resume(
        cls, path: str | Path, config: Settings, fingerprint: Fingerprint, may_change: Sequence[str] = ()
    ) -> Self:
        """The run at PATH, to go on with; call `rewind` with the checkpoint's step before logging.

        Another code version, machine or address of a server is no obstacle: it is added to the fingerprint's list of
        environments.

        Args:
          may_change: dotted settings that may differ from before, such as the number of epochs.

        Raises:
          RunError: there is no run, its data, model, pairs or judges are others, or another process writes it.
          ConfigError: its settings are others.
        """
        run = cls(path)
        before, after = flatten(run.config(type(config))), flatten(config)
        changed = [key for key in after if before[key] != after[key]]
        if wrong := [f"{key} was {before[key]!r}, is {after[key]!r}" for key in changed if key not in may_change]:
            raise ConfigError(f"{run.path} was started with other settings: {'; '.join(wrong)}")
        record, now = run.fingerprint(), fingerprint.compared
        stored = run._stored(record).compared
        if wrong := [f"{key} was {stored[key]!r}, is {now[key]!r}" for key in now if stored[key] != now[key]]:
            raise RunError(f"{run.path} was started from something else: {'; '.join(wrong)}; choose another name")
        run._hold()
        sweep(run.path)
        if changed:
            write_atomic(run.path / "config.toml", dump(config))
        past = record["environments"]
        assert isinstance(past, list)
        here = environment(fingerprint.servers)
        numbers = {name: getattr(fingerprint, name) for name in NUMBERS}
        if past[-1] != here or numbers != {name: record.get(name, numbers[name]) for name in NUMBERS}:
            record = {**fingerprint.model_dump(mode="json"), "environments": [*past, here]}
            write_json(run.path / "fingerprint.json", record)
        run.rewind()
        return run

    def config(self, kind: type[S]) -> S:
        """The settings that the run was started with."""
        return load(kind, [self._require("config.toml")])

    def fingerprint(self) -> dict[str, Json]:
        """The fingerprint with the environments that the run has seen, oldest first."""
        try:
            record = json.loads(self._require("fingerprint.json").read_bytes())
            return {**record, "environments": list(record["environments"])}
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.path / 'fingerprint.json'} is damaged: {error!r}") from error

    def note_refused(self, judges: Sequence[Mapping[str, str]]) -> None:
        """Add what the servers of some of the run's judges and users refuse, once it is known, to its fingerprint."""

        def who(judge: Mapping[str, str]) -> frozenset[tuple[str, str]]:
            return frozenset((key, x) for key, x in judge.items() if key != REFUSED)

        record, found = self.fingerprint(), {who(judge): dict(judge) for judge in judges if REFUSED in judge}
        before = self._stored(record).judges
        now = [found.get(who(judge), judge) for judge in before]
        if now != [*before]:
            write_json(self.path / "fingerprint.json", {**record, "judges": now})

    def _stored(self, record: Mapping[str, Json]) -> Fingerprint:
        try:
            return Fingerprint.model_validate({key: x for key, x in record.items() if key in Fingerprint.model_fields})
        except ValidationError as error:
            raise RunError(f"{self.path / 'fingerprint.json'} is damaged: {error.errors()[0]['msg']}") from error

    def log(self, step: int, scalars: Mapping[str, float], stage: str = "") -> None:
        """Append one row to metrics.jsonl and TensorBoard. Log a step before saving its checkpoint."""
        self._append("metrics.jsonl", step, stage, scalars)
        self._show(step, stage, scalars)

    def trace(self, step: int, record: Mapping[str, Json], stage: str = "") -> None:
        """Append one record of who said what to traces.jsonl."""
        self._append("traces.jsonl", step, stage, record)

    def metrics(self) -> list[dict[str, Json]]:
        """All rows of metrics.jsonl."""
        return read_json_lines(self.path / "metrics.jsonl")

    def traces(self) -> list[dict[str, Json]]:
        """All records of traces.jsonl."""
        return read_json_lines(self.path / "traces.jsonl")

    def rewind(self, step: int | None = None, stage: str = "") -> None:
        """Forget what STAGE logged after STEP, so that nothing counts twice; None drops torn lines only."""
        self._hold()
        self._close_logs()
        for name in ("metrics.jsonl", "traces.jsonl"):
            rows = read_json_lines(self.path / name)
            if step is not None:
                rows = [x for x in rows if x.get("stage", "") != stage or _step(x, self.path / name) <= step]
            if (self.path / name).is_file():
                write_atomic(self.path / name, "".join(map(json_line, rows)))
        shutil.rmtree(self.path / "tb", ignore_errors=True)
        for row in self.metrics():
            scalars = {key: x for key, x in row.items() if key != "step" and isinstance(x, (int, float))}
            self._show(_step(row, self.path / "metrics.jsonl"), str(row.get("stage", "")), scalars)

    def close(self) -> None:
        """Close the logs and let others write the run; the next `log` opens them again."""
        self._close_logs()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _close_logs(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
        if self._board is not None:
            self._board.close()
            self._board = None

    def __enter__(self) -> Self:
        self._hold()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _hold(self) -> None:
        """Be the one that writes here; a RunError where somebody else is."""
        if self._lock is not None:
            return
        try:
            self._lock = lock(self.path / "lock")
        except BlockingIOError as error:
            raise RunError(
                f"{self.path} is being written by another process; wait until it ends, or choose another name"
            ) from error

    def _append(self, name: str, step: int, stage: str, record: Mapping[str, Json]) -> None:
        self._hold()
        if name not in self._files:
            self._files[name] = (self.path / name).open("a", encoding="utf-8")
        self._files[name].write(json_line({"step": step, **({"stage": stage} if stage else {}), **record}))
        self._files[name].flush()

    def _show(self, step: int, stage: str, scalars: Mapping[str, float]) -> None:
        if self._board is None:
            self._board = SummaryWriter(str(self.path / "tb"))
        for name, value in scalars.items():
            self._board.add_scalar(f"{stage}/{name}" if stage else name, value, step)

    def _require(self, name: str) -> Path:
        if not (self.path / name).is_file():
            raise RunError(f"{self.path} holds no run (it has no {name})")
        return self.path / name


class Follower(Run):
    """The run as processes beside the first one have it: they write nothing, and know the rows that they would have."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._rows: list[dict[str, Json]] = []

    def log(self, step: int, scalars: Mapping[str, float], stage: str = "") -> None:
        """Remember the row."""
        self._rows.append({"step": step, "stage": stage, **scalars})

    def metrics(self) -> list[dict[str, Json]]:
        """The rows since this process began, or one with nothing in it."""
        return self._rows or [{}]

    def trace(self, step: int, record: Mapping[str, Json], stage: str = "") -> None:
        """The first process writes it."""

    def rewind(self, step: int | None = None, stage: str = "") -> None:
        """The first process does."""

    def note_refused(self, judges: Sequence[Mapping[str, str]]) -> None:
        """The first process does."""

    def _hold(self) -> None:
        pass


def _step(row: Mapping[str, Json], path: Path) -> int:
    step = row.get("step")
    if not isinstance(step, int):
        raise RunError(f"{path}: a row has no step")
    return step
