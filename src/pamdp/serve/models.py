"""The models that a server offers: what a run has trained, the clone that it began with, and the plain model.

Owns their names and versions. Knows nothing of requests.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pamdp.models.backbone import Backbone
from pamdp.models.critics import DualCritic
from pamdp.models.policy import Policy
from pamdp.rl.returns import max_value
from pamdp.train.factory import load_critics, load_policy, shipped, with_planner
from pamdp.train.init_from import latest_policy
from pamdp.train.policy_metadata import read_metadata
from pamdp.train.reinforce import R_MAX
from pamdp.workflows import backbones

TRAINED, CLONE, PLAIN = "pamdp", "clone", "vanilla"
PLANNER = "planner.safetensors"
Load = Callable[[str], Backbone]


@dataclass(frozen=True, slots=True)
class Model:
    """A policy under a name.

    Attributes:
      version: sha256 of the planner's file, or the backbone's revision where there is none.
      created: when it was loaded, in seconds since 1970.
      critics: V(h) and V(h, ω), where they were kept with the policy.
    """

    name: str
    policy: Policy
    version: str
    created: int = field(default_factory=lambda: int(time.time()))
    critics: DualCritic | None = None


Models = Mapping[str, Model]


def load_models(source: str, load: Load) -> Models:
    """The models of the run, or of the policy's folder, SOURCE (or `shipped`), by name; a RunError where it is none.

    The clone is among them where something was trained from it: the two share an adapter, so they are written together.
    """
    latest = latest_policy(source)
    about = read_metadata(latest)
    bare, own = backbones(about.config, load)
    cloned = shipped() if source == "shipped" else latest.parent / "policy"
    found = {}
    if cloned != latest and (cloned / PLANNER).is_file():
        clone = load_policy(cloned, own)
        found[TRAINED] = replace(with_planner(clone, latest / PLANNER), config=about.config), version(latest)
        found[CLONE] = clone, version(cloned)
    else:
        found[TRAINED] = load_policy(latest, own), version(latest)
    plain = Policy(bare, readout=found[TRAINED][0].readout, config=about.config)
    found[PLAIN] = plain, f"{bare.name}@{bare.revision}"
    models = {name: Model(name, policy, version) for name, (policy, version) in found.items()}
    rl, width = about.config.rl, models[TRAINED].policy.width
    critics = load_critics(latest, width, max_value(R_MAX, rl.gamma, rl.horizon))
    return models | {TRAINED: replace(models[TRAINED], critics=critics)}


def version(folder: Path) -> str:
    """What tells the policy in a folder from others."""
    return hashlib.sha256((folder / PLANNER).read_bytes()).hexdigest()


def reusing(models: Models, load: Load) -> Load:
    """LOAD, but the bare backbone of MODELS where it is the one asked for: it is not loaded a second time."""
    spare = [models[PLAIN].policy.backbone]

    def found(name: str) -> Backbone:
        return spare.pop() if spare and spare[0].name == name else load(name)

    return found
