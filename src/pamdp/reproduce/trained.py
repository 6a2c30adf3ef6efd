"""Policies that were trained elsewhere (`trained.METHOD=RUN`): a run that learned as one would here is copied in.

Owns what must be equal, and the copy. From then on it is the comparison's own run: what it cost is counted with it, and
no other policy is mixed into what it said.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pamdp.config import MAY_CHANGE, Config
from pamdp.errors import RunError
from pamdp.files import new_folder
from pamdp.fingerprint import Fingerprint
from pamdp.models.policy import Policy
from pamdp.reproduce.config import OnlineReproduceConfig, learns
from pamdp.reproduce.store import run_folder, said_file
from pamdp.runs import Run
from pamdp.settings import flatten
from pamdp.train.env_factory import OPERATION, EnvFactory
from pamdp.train.factory import Split
from pamdp.train.online import provenance_of, read_provenance

PLANNER = Path("trained", "planner.safetensors")
FREE = (*OPERATION, "price_prompt", "price_completion", "urls", "groups")
"""Last parts of the names of settings under `judge` and `online` that decide how long learning takes and its cost."""
SHOWN = 3
"""Differences that a refusal names before it only counts them."""


def runs_to_copy(
    config: OnlineReproduceConfig, path: Path, methods: Sequence[str], split: Split, cloned: Policy, world: EnvFactory
) -> dict[Path, Path]:
    """Runs that stand in for training METHODS, each with the folder that it is to be copied to, where it is not yet.

    A RunError where one is missing, unfinished or learned under other conditions, or another policy is there already.
    """
    out = dict[Path, Path]()
    for seed in config.seeds:
        for method in (name for name in methods if learns(name) and name in config.trained):
            run = Path(config.trained[method].replace("{seed}", str(seed)))
            own, said = run_folder(path, method, seed), said_file(path, method, seed)
            had, print_ = Run(run).config(Config), Run(run).fingerprint()
            if not (run / PLANNER).is_file():
                raise RunError(f"{run} holds no trained policy; `pamdp train online --run {run} --resume` finishes it")
            wanted = config.of_run(seed, method)
            there = replace(world, config=wanted, writer=world.writer if wanted.online.reference == "written" else None)
            now = Fingerprint(
                data=split.sha256, model=str(print_["model"]), revision=cloned.backbone.revision,
                judges=there.fingerprints(split.train),
            )  # fmt: skip
            stored = Fingerprint.model_validate({k: x for k, x in print_.items() if k in Fingerprint.model_fields})
            origin = provenance_of(cloned, split.train)
            ours = _conditions(wanted, wanted, now, origin)
            _require_equal(f"trained.{method}: {run}", _conditions(had, wanted, stored, read_provenance(run)), ours)
            if (own.exists() or said.is_file()) and _kept(own, said) != _digest(run):
                raise RunError(f"{own} is of another policy than trained.{method}={run}; choose another --run")
            if not own.exists():
                out[run] = own
    return out


def copy_run(run: Path, own: Path) -> None:
    """Copy what a comparison needs of a run, whole."""
    own.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(own) as part:
        shutil.copytree(
            run, part, ignore=shutil.ignore_patterns("checkpoints", "policy", "tb", "lock"), dirs_exist_ok=True
        )


def _conditions(had: Config, wanted: Config, print_: Fingerprint, origin: dict[str, Any]) -> dict[str, Any]:
    """What bears on what is learned; data and cloning are compared by what came of them."""
    idle = {"writer": wanted.online.reference != "written", "profiler": wanted.rl.profile != "inferred"}

    def counts(key: str) -> bool:
        part, _, rest = key.partition(".")
        role, _, name = rest.rpartition(".")
        if key in MAY_CHANGE:
            return False
        return part in ("seed", "model", "rl") or (
            part in ("judge", "online") and name not in FREE and not idle.get(role)
        )

    return {key: x for key, x in flatten(had).items() if counts(key)} | {
        "data": print_.data,
        "users to learn from": [origin.get("users"), origin.get("dialogues")],
        "cloned policy": [print_.revision, origin.get("policy")],
        "simulator, references or judge": print_.compared["judges"],
    }


def _require_equal(name: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    other = [
        f"other {key}" if isinstance(x, list) or key == "data" else f"{key} was {theirs[key]!r}, is {x!r}"
        for key, x in ours.items()
        if theirs[key] != x
    ]
    if other:
        more = f"; and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
        raise RunError(
            f"{name} learned under other conditions than the other methods: {'; '.join(other[:SHOWN])}{more}; "
            "train it with these settings, or leave it out"
        )


def _kept(own: Path, said: Path) -> str | None:
    """Which policy said what is stored; earlier versions wrote it beside what it said, and copied nothing."""
    given = said.with_suffix(".given.json")
    if given.is_file():
        return str(json.loads(given.read_text(encoding="utf-8"))["planner"])
    return _digest(own) if (own / PLANNER).is_file() else None


def _digest(run: Path) -> str:
    return hashlib.sha256((run / PLANNER).read_bytes()).hexdigest()
