"""Policies that were trained elsewhere (`trained.METHOD=RUN`): whether they may stand in for training here.

Owns what must be equal: the cloned policy they started from, users, judges, settings and seed. Knows nothing of how
policies are trained and played. Which policy the stored dialogues of a method are by stands beside them, in
a file of their own, so that no other one is mixed into them or taken for theirs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pamdp.config import Config
from pamdp.errors import RunError
from pamdp.files import write_json
from pamdp.fingerprint import Fingerprint
from pamdp.models.policy import Policy
from pamdp.reproduce.online.config import ADVANTAGES, OnlineReproduceConfig
from pamdp.reproduce.online.files import given_file, journal_file, talks_file
from pamdp.runs import Run
from pamdp.settings import flatten
from pamdp.train.env_factory import OPERATION, EnvFactory
from pamdp.train.factory import Split
from pamdp.train.provenance import Provenance, provenance_of, read_provenance

FREE = (*OPERATION, "price_prompt", "price_completion", "cache", "groups")
"""Last parts of the names of settings under `online` that decide how long learning takes and what it costs."""
SHOWN = 3
"""Differences that a refusal names before it only counts them."""


def check_given(
    config: OnlineReproduceConfig, path: Path, methods: Sequence[str], split: Split, cloned: Policy, world: EnvFactory
) -> None:
    """Refuse runs in `trained` that learned under other conditions than METHODS do here, before anything is done.

    Args:
      path: the comparison's run directory, which need not be there yet.

    Raises:
      RunError: a run is missing, unfinished or unequal, or what is stored of its method is by another policy.
    """
    used = [name for name in methods if name in ADVANTAGES]
    origin = provenance_of(cloned, split.train, config.clone.backbone) if config.trained.keys() & set(used) else None
    for seed in config.seeds:
        for method in used:
            given = config.given(method, seed)
            if given is not None and origin is not None:
                _require_equal(given, f"trained.{method}", config.of_run(seed, method), split, origin, cloned, world)
            _require_kept(path, method, seed, given)


def keep_given(path: Path, method: str, seed: int, given: Path | None) -> None:
    """Write beside a method's dialogues, before there are any, which policy they are by."""
    file = given_file(path, method, seed)
    if given is None:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"run": str(given), "planner": _sha256(given)})


def _require_equal(
    run: Path, name: str, wanted: Config, split: Split, origin: Provenance, cloned: Policy, world: EnvFactory
) -> None:
    stored = Run(run)
    found, had = Fingerprint.model_validate(_named(stored)), stored.config(Config)
    if not (run / "trained" / "planner.safetensors").is_file():
        raise RunError(f"{run} holds no trained policy; finish it with `pamdp train online --run {run} --resume`")
    if found.data != split.sha256:
        raise RunError(f"{run} was trained on other data, so its users may be among those that test; train it anew")
    taught = read_provenance(run)
    if both := sorted(set(taught.users) & {d.user_id for d in split.test}):
        raise RunError(f"{run} learned from {len(both)} users that test here, such as {both[0]!r}; train it anew")
    if taught.dialogues != origin.dialogues:
        raise RunError(
            f"{run} learned from {len(taught.dialogues)} dialogues that are not the {len(origin.dialogues)} of the "
            "other methods; train it with their data settings"
        )
    if found.revision != cloned.backbone.revision or taught.policy != origin.policy:
        raise RunError(f"{run} learned from another cloned policy than the other methods; set `start` to that one")
    world = replace(world, config=wanted, writer=world.writer if wanted.online.reference == "written" else None)
    here = Fingerprint(
        data=split.sha256, model=found.model, revision=found.revision, judges=world.fingerprints(split.train)
    )
    before, after = flatten(had), flatten(wanted)
    other = [
        f"{key} was {before[key]!r}, is {after[key]!r}"
        for key in after
        if _counts(key, wanted) and before[key] != after[key]
    ]
    if found.compared["judges"] != here.compared["judges"]:
        other.append("its users, references or judge were others")
    if other:
        more = f"; and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
        raise RunError(
            f"{name}: {run} learned under other conditions than the other methods: {'; '.join(other[:SHOWN])}{more}; "
            "train it with these settings, or leave it out"
        )


def _counts(key: str, config: Config) -> bool:
    """Whether a setting bears on what is learned; data and cloning are compared by what came of them."""
    part, _, rest = key.partition(".")
    if part != "online":
        return part in ("seed", "model", "rl")
    role, _, name = rest.rpartition(".")
    idle = {"writer": config.online.reference != "written", "profiler": config.rl.profile != "inferred"}
    return name not in FREE and not idle.get(role, False)


def _require_kept(path: Path, method: str, seed: int, given: Path | None) -> None:
    """What is stored of a method must be by the policy that the settings name."""
    if not (talks_file(path, method, seed).is_file() or journal_file(path, method, seed).is_file()):
        return
    file = given_file(path, method, seed)
    kept = json.loads(file.read_text(encoding="utf-8"))["planner"] if file.is_file() else None
    if kept != (None if given is None else _sha256(given)):
        by = "a policy that was trained here" if kept is None else "another policy that was trained elsewhere"
        raise RunError(
            f"{talks_file(path, method, seed)} holds what {by} said, and trained.{method} is "
            f"{str(given or 'not set')!r}; choose another --run"
        )


def _sha256(run: Path) -> str:
    return hashlib.sha256((run / "trained" / "planner.safetensors").read_bytes()).hexdigest()


def _named(run: Run) -> dict[str, object]:
    return {key: value for key, value in run.fingerprint().items() if key in Fingerprint.model_fields}
