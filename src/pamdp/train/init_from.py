"""Where reinforcement starts: a cloned policy, and settings that agree with what was cloned.

Owns how the settings of a run combine with those of its clone, and σ. Knows nothing of loops.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pamdp.config import PLACE, Config, ModelConfig
from pamdp.errors import ConfigError, ModelError
from pamdp.fingerprint import NUMBERS
from pamdp.models.backbone import Backbone
from pamdp.models.place import place_of
from pamdp.models.policy import Policy
from pamdp.place_config import PlaceConfig
from pamdp.progress import note
from pamdp.settings import flatten, load
from pamdp.train.factory import load_policy, shipped
from pamdp.train.policy_metadata import read_metadata

FIXED = ("model", "clone")
"""Parts of the settings that a clone has settled."""
OVER = {
    f"clone.{name}"
    for name in (
        "epochs",
        "batch_size",
        "lr",
        "lr_backbone",
        "rejected",
        "noise",
        "context_dropout",
        "clip",
        "save_every",
        "pack_tokens",
    )
}
"""Settings of how cloning went, which bear on nothing that comes after it."""
FREE = frozenset({"overflow", *PLACE})
"""The settings of `model` that are not settled; where it computes is what is asked for now, else "auto"."""


def policy_folder(source: str) -> Path:
    """Folder of the cloned policy of the run SOURCE, or of the one that is `shipped`."""
    return shipped() if source == "shipped" else Path(source) / "policy"


def latest_policy(source: str | Path) -> Path:
    """Folder of what the run SOURCE reinforced or else cloned, of the policy that is `shipped`, or SOURCE itself."""
    names = (Path(source) / name for name in ("trained", "policy"))
    return shipped("trained") if source == "shipped" else next((f for f in names if f.is_dir()), Path(source))


def settings_from(start: Path, sources: Sequence[str], overrides: Sequence[str]) -> Config:
    """The settings of a run that reinforces the policy in START: what was cloned is what is reinforced.

    `model` and `clone` are those of the clone. `data`, `model.overflow` and `rl.sigma` are, where nothing else is asked
    for; settings of the data are asked for one by one, but those of another `data.path` start from the defaults. Where
    the model computes is never the clone's: another machine may have no such place.

    Raises:
      ConfigError: a setting of `model` or `clone` is asked for that the clone does not have; how its cloning went, such
        as `clone.epochs` of a preset, is only noted.
    """
    return combined(load(Config, sources, overrides), read_metadata(start).config, str(start))


def combined(asked: Config, cloned: Config, where: str) -> Config:
    """The settings of a run that reinforces what was CLONED at WHERE; for all else, errors too, see `settings_from`."""
    known, named = flatten(cloned), asked.data.model_fields_set
    other = {
        f"{part}.{name}": value
        for part in FIXED
        for name in sorted(getattr(asked, part).model_fields_set - FREE)
        if (value := getattr(getattr(asked, part), name)) != known[f"{part}.{name}"]
    }
    if wrong := {key: value for key, value in other.items() if key not in OVER}:
        said = "; ".join(f"{k}={x!r} is asked for, but {where} was cloned with {known[k]!r}" for k, x in wrong.items())
        same = " ".join(f"{key}={known[key]}" for key in wrong)
        raise ConfigError(
            f"{said}; ask for what was cloned (behind presets, that is {same}), or clone anew with `pamdp train bc`"
        )
    if other:
        said = ", ".join(f"{key} {known[key]!r}, not {value!r}" for key, value in other.items())
        note(f"{where} was cloned otherwise than these settings say ({said}), and stays as it is")
    data = asked.data
    if "path" not in named or data.path == cloned.data.path:
        data = cloned.data.model_copy(update={name: getattr(data, name) for name in named})
    rl = asked.rl if "sigma" in asked.rl.model_fields_set else asked.rl.model_copy(update={"sigma": cloned.rl.sigma})
    free = (FREE & asked.model.model_fields_set) | set(PLACE)
    model = cloned.model.model_copy(update={name: getattr(asked.model, name) for name in free})
    return asked.model_copy(update={"model": model, "clone": cloned.clone, "data": data, "rl": rl})


def placed(stored: ModelConfig, asked: PlaceConfig = PlaceConfig()) -> ModelConfig:
    """The settings of a STORED policy's model, computing where it is ASKED to; "auto" where nothing is asked for.

    What it was trained on need not be here. Its type and quantization are, where this machine has them: their digits
    are what it was trained with; where it has not, that is noted.
    """
    bare = stored.model_copy(update={name: getattr(ModelConfig(), name) for name in PLACE})
    asks = {name: getattr(asked, name) for name in asked.model_fields_set & set(PLACE)}
    now = bare.model_copy(update={name: getattr(stored, name) for name in NUMBERS} | asks)
    try:
        place_of(now)
    except ModelError as error:
        now = bare.model_copy(update=asks)
        place_of(now)  # what is asked for is refused, or had
        note(f"as the policy was trained, {error}; {place_of(now).why} is used")
    return now


def load_start(start: Path, backbone: Backbone, config: Config) -> Policy:
    """The cloned policy in START, as CONFIG asks for it."""
    return starting(load_policy(start, backbone), config)


def starting(policy: Policy, config: Config) -> Policy:
    """POLICY with the σ and the free settings of `model` that CONFIG asks for.

    Cloning made σ `rl.sigma` times the RMS of its actions, which the ratio of two values keeps without knowing it.
    """
    actor = copy.deepcopy(policy.trained_planner.actor)
    actor.sigma.mul_(config.rl.sigma / policy.config.rl.sigma)
    model = policy.config.model.model_copy(update={name: getattr(config.model, name) for name in FREE})
    return replace(policy.with_actor(actor), config=policy.config.model_copy(update={"model": model}))
