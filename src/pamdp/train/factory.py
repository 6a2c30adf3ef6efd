"""From settings to parts: dialogues, backbone, a policy before and after cloning.

Owns construction, and how a policy's weights are stored (planner.safetensors, adapter.safetensors or
backbone.safetensors; policy_metadata.py has what stands beside them). Knows nothing of loops. This is where settings
end: everything below takes values.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

import torch

from pamdp import ranks
from pamdp.checkpoint import load_tensors, save_tensors
from pamdp.config import Config, DataConfig
from pamdp.data import (
    Loaded,
    LoadedPairs,
    load_dialogues,
    load_pairs,
    load_plain,
    load_rated,
    load_sample,
    load_sample_pairs,
    load_sample_rated,
    split_by_topic,
    split_by_user,
    spread,
)
from pamdp.data.rated import RatedDialogue
from pamdp.errors import ConfigError, RunError
from pamdp.files import new_folder, write_json
from pamdp.models.actor import Planner
from pamdp.models.adapters import Adapter, adapter_tensors, load_adapter, train_backbone
from pamdp.models.backbone import Backbone, Readout
from pamdp.models.critics import DualCritic
from pamdp.models.policy import Policy
from pamdp.train.parallel import require_launch
from pamdp.train.policy_metadata import FILE, PolicyMetadata, learned_from, read_metadata
from pamdp.types import Dialogue

READINGS = "readings"
BUNDLED: dict[str, Callable[[], tuple[Loaded, Loaded]]] = {
    "sample": lambda: (load_sample("train"), load_sample("test")),
    "plain": lambda: (load_plain("train"), load_plain("test")),
    "plain-rl": lambda: (load_plain("rl"), load_plain("test")),
    READINGS: lambda: (load_sample_rated()[0], load_plain("test")),
}
"""Dialogues that come with the package, by the name that `data.path` gives: those to learn from, and those to test."""
CRITICS = "critics"
"""Name of the file that holds a policy's critics."""


@dataclass(frozen=True, slots=True)
class Split:
    """Dialogues of users that learn and of users that only test.

    Attributes:
      sha256: identifies the source.
      skipped: bad records of the source that were left out.
      repairs: what was mended, merged or left out inside records that were kept, and how often.
    """

    train: tuple[Dialogue, ...]
    test: tuple[Dialogue, ...]
    sha256: str
    skipped: int = 0
    repairs: Mapping[str, int] = field(default_factory=dict)

    @property
    def repaired(self) -> int:
        """How often anything was mended, merged or left out."""
        return sum(self.repairs.values())


def load_split(config: DataConfig) -> Split:
    """The sample's own split, or a split of other data by topic or by user; of each part as many as are asked for."""
    if config.path in BUNDLED:
        train, test = BUNDLED[config.path]()
        whole = Split(train.dialogues, test.dialogues, train.sha256[:32] + test.sha256[:32])
    else:
        loaded = load_dialogues(config.path, config.format, config.skip_bad)
        if config.folds:
            parts = split_by_topic(loaded.dialogues, config.folds, config.split_seed % config.folds)
        else:
            parts = split_by_user(loaded.dialogues, config.test_share, seed=config.split_seed)
        whole = Split(*parts, loaded.sha256, len(loaded.skipped), loaded.repaired)
    learn, evaluate = spread(whole.train, config.train_dialogues), spread(whole.test, config.test_dialogues)
    return replace(whole, train=learn, test=evaluate)


def rated_part(config: DataConfig, split: Split) -> tuple[RatedDialogue, ...]:
    """What users said of replies, where the data are an export of feedback: of the dialogues that are learned from."""
    if config.path in BUNDLED and config.path != READINGS:
        return ()
    learned = {dialogue.id for dialogue in split.train}
    if config.path == READINGS:
        rated = load_sample_rated()[1]
    else:
        rated = load_rated(config.path, config.format, config.skip_bad)
    return tuple(dialogue for dialogue in rated if dialogue.id in learned)


def load_clone_pairs(config: Config) -> LoadedPairs:
    """The preference pairs that cloning learns actions from, if it does; of the sample, those of its training users.

    Returns:
      The pairs with the sha256 of their source; no pairs, and an empty one, where cloning uses none.
    """
    path = config.data.pairs
    if path == "auto":
        path = "sample" if config.data.path == "sample" else ""
    if not path or not config.clone.steer:
        return LoadedPairs("none", "", (), {}, ())
    return load_sample_pairs("train") if path == "sample" else load_pairs(path, "auto")


def require_learnable(config: Config) -> None:
    """A ConfigError where weights that learn are kept in four bits, or a launcher asked for what cannot be done.

    Nothing has to be loaded for it.
    """
    require_launch(config.model.quantization)
    if config.clone.backbone == "full" and config.model.quantization != "none":
        raise ConfigError(
            f"clone.backbone=full changes every weight, and model.quantization={config.model.quantization} keeps them "
            "rounded; set model.quantization=none or clone.backbone=lora"
        )


def new_policy(backbone: Backbone, config: Config) -> Policy:
    """A policy that nobody has trained yet; what CloneConfig.backbone names is trainable.

    A ConfigError where actions are to shift hidden states, but H(h) is read where none can be shifted.
    """
    readout = Readout(config.model.readouts, backbone.layer_at(config.model.depth))
    if config.clone.steer > 0 and readout.layer < 1:
        where = "the embeddings" if readout.layer == 0 else "the last layer"
        raise ConfigError(
            f"clone.steer = {config.clone.steer:g} shifts hidden states where H(h) is read, and model.depth = "
            f"{config.model.depth:g} reads {where}, where nothing can be shifted; set a depth between 0 and 1 "
            "(such as model.depth=0.6), or clone.steer=0"
        )
    policy = Policy(backbone, readout=readout, config=config)
    torch.manual_seed(config.seed)
    planner = Planner(policy.width, backbone.d, config.model.d_a, config.model.n_embeddings, config.clone.steer > 0)
    planner.to(backbone.device)
    adapter = None
    if config.clone.backbone == "lora":
        first = max(readout.layer, 0) if config.clone.lora_layers == "above" else 0
        adapter = Adapter(backbone, config.clone.lora_rank, first, config.seed)
    train_backbone(backbone, config.clone.backbone, None if adapter is None else adapter.name)
    return replace(policy, planner=planner, adapter=adapter)


def vanilla(policy: Policy, bare: Backbone | None, config: Config, part: str) -> Policy:
    """The plain model as an author of references, on BARE or, where cloning left its weights alone, on the own one.

    A ConfigError where cloning changed every weight of the policy's backbone, and no bare one is given.
    """
    if bare is None and config.clone.backbone == "full":
        raise ConfigError(
            f"{part}.reference=vanilla: cloning changed every weight (clone.backbone=full); give `bare`, a backbone of "
            f"its own for Vanilla, or set {part}.reference=clone"
        )
    return Policy(bare or policy.backbone, readout=policy.readout, config=policy.config)


def policy_weights(policy: Policy) -> dict[str, dict[str, torch.Tensor]]:
    """Everything that was trained, by group: planner, and adapter or backbone."""
    weights = {"planner": dict(policy.trained_planner.state_dict())}
    if policy.adapter is not None:
        weights["adapter"] = adapter_tensors(policy.backbone, policy.adapter.name)
    elif policy.config.clone.backbone == "full":
        weights["backbone"] = dict(policy.backbone.model.state_dict())
    return weights


def set_weights(policy: Policy, weights: dict[str, dict[str, torch.Tensor]]) -> None:
    """The inverse of policy_weights."""
    policy.trained_planner.load_state_dict(weights["planner"])
    if policy.adapter is not None:
        load_adapter(policy.backbone, policy.adapter.name, weights["adapter"])
    elif "backbone" in weights:
        policy.backbone.model.load_state_dict(weights["backbone"])


def save_policy(policy: Policy, folder: Path, critics: DualCritic | None = None) -> None:
    """Write a policy whole, with the critics that it was trained with, if any; what is there already is replaced.

    Of several processes, the first one writes.

    The users it learned from are noted beside it, so that nobody of them tests.
    """
    if ranks.rank():
        return
    weights = policy_weights(policy)
    if critics is not None:
        weights[CRITICS] = dict(critics.state_dict())
    backbone, users = policy.backbone, tuple(sorted(policy.users))
    metadata = PolicyMetadata(
        base_model=backbone.name, revision=backbone.revision, system=policy.system, config=policy.config, users=users
    )
    with new_folder(folder) as part:
        for name, group in weights.items():
            save_tensors(part / f"{name}.safetensors", group)
        write_json(part / FILE, metadata.model_dump(mode="json"))


def load_policy(folder: Path, backbone: Backbone) -> Policy:
    """A stored policy on a backbone; a RunError where none is stored, it is damaged, or another backbone's."""
    about = read_metadata(folder)
    if about.revision != backbone.revision:
        raise RunError(
            f"the policy in {folder} was trained on {about.base_model} ({about.revision}), "
            f"not on {backbone.name} ({backbone.revision}); load that model, or train the policy anew"
        )
    policy = new_policy(backbone, about.config)
    files = [file for file in sorted(folder.glob("*.safetensors")) if file.stem != CRITICS]
    set_weights(policy, {file.stem: load_tensors(file) for file in files})
    train_backbone(backbone, "frozen")
    return replace(policy, system=about.system, users=frozenset(learned_from(about)))


def with_planner(policy: Policy, file: Path) -> Policy:
    """A cloned POLICY with the planner that was reinforced from it; the adapter is shared."""
    planner = copy.deepcopy(policy.trained_planner)
    planner.load_state_dict(load_tensors(file))
    return replace(policy, planner=planner)


def load_critics(folder: Path, width: int, v_max: float) -> DualCritic | None:
    """The critics that stand beside a trained policy, if any, for H(h) of WIDTH and values up to V_MAX."""
    path = folder / f"{CRITICS}.safetensors"
    if not path.is_file():
        return None
    critics = DualCritic(width, width, v_max)
    critics.load_state_dict(load_tensors(path))
    return critics


def shipped(what: Literal["policy", "trained"] = "policy") -> Path:
    """Folder of the policy that comes with the package: as it was cloned, or as it was trained from there."""
    with as_file(files("pamdp") / "assets" / what) as folder:
        return Path(folder)
