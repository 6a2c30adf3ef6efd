"""The models that a server offers: what a run has trained, the clone that it began with, and the plain model.

Owns their names and versions. Knows nothing of requests.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pamdp.config import ModelConfig
from pamdp.models.backbone import Backbone
from pamdp.models.critics import DualCritic
from pamdp.models.place import place_of
from pamdp.models.policy import Policy
from pamdp.place_config import PlaceConfig
from pamdp.rl.returns import max_value
from pamdp.train.factory import load_critics, load_policy, shipped, with_planner
from pamdp.train.init_from import latest_policy, placed
from pamdp.train.policy_metadata import learned_from, read_metadata
from pamdp.train.reinforce import R_MAX
from pamdp.workflows import backbones

TRAINED, CLONE, PLAIN = "pamdp", "clone", "vanilla"
PLANNER = "planner.safetensors"
Load = Callable[[ModelConfig], Backbone]


@dataclass(frozen=True, slots=True)
class Model:
    """A policy under a name.

    Attributes:
      version: sha256 of the planner's file, or the backbone's revision where there is none.
      run: the run that it is of, or its folder where it is of none.
      critics: V(h) and V(h, w) of what was trained; None where none are stored.
      created: when it was loaded, in seconds since 1970.
    """

    name: str
    policy: Policy
    version: str
    run: str = ""
    critics: DualCritic | None = None
    created: int = field(default_factory=lambda: int(time.time()))


Models = Mapping[str, Model]


def load_models(source: str, load: Load, place: PlaceConfig = PlaceConfig()) -> Models:
    """The models of the run, or of the policy's folder, SOURCE (or `shipped`), by name; a RunError where it is none.

    The clone is among them where something was trained from it: the two share an adapter, so they are written together.
    They compute where PLACE says, as in an evaluation.
    """
    latest = latest_policy(source)
    about = read_metadata(latest)
    bare, own = backbones(about.config.model_copy(update={"model": placed(about.config.model, place)}), load)
    cloned = shipped() if source == "shipped" else latest.parent / "policy"
    run = run_of(source)
    found = []
    if cloned != latest and (cloned / PLANNER).is_file():
        clone = load_policy(cloned, own)
        trained, users = with_planner(clone, latest / PLANNER), frozenset(learned_from(about))
        found = [Model(CLONE, clone, version(cloned), run)]
        policy = replace(trained, config=about.config, users=users)
    else:
        policy = load_policy(latest, own)
    critics = load_critics(latest, policy.width, max_value(R_MAX, about.config.rl.gamma, about.config.rl.horizon))
    plain = Policy(bare, readout=policy.readout, config=about.config)
    found = [
        Model(TRAINED, policy, version(latest), run, critics), *found,
        Model(PLAIN, plain, f"{bare.name}@{bare.revision}"),
    ]  # fmt: skip
    return {model.name: model for model in found}


def run_of(source: str) -> str:
    """The run that the policy of SOURCE is of, by its whole path; `shipped`, or the policy's folder, if it is of none.

    What trains a policy again (erasing.py) begins there.
    """
    if source == "shipped":
        return source
    latest = latest_policy(source).resolve()
    return str(latest.parent if (latest.parent / "policy").is_dir() else latest)


def version(folder: Path) -> str:
    """What tells the policy in a folder from others."""
    return hashlib.sha256((folder / PLANNER).read_bytes()).hexdigest()


def reusing(models: Models, load: Load) -> Load:
    """LOAD, but the bare backbone of MODELS where it is the one asked for: it is not loaded a second time."""
    spare = [models[PLAIN].policy.backbone]

    def found(model: ModelConfig) -> Backbone:
        wanted = model.name, place_of(model).dtype, model.quantization
        if spare and (spare[0].name, spare[0].dtype, spare[0].identity["quantization"]) == wanted:
            return spare.pop()
        return load(model)

    return found
