"""Checkpoints: weights and the state of training as safetensors and JSON, complete or not there at all; never pickle.

Owns the layout of checkpoints/STEP/: one NAME.safetensors for each group of weights, and state.safetensors with
state.json for what resuming needs (optimizers, random numbers, counters). Knows nothing of whose they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pamdp import ranks
from pamdp.errors import ModelError, RunError
from pamdp.files import Json, new_folder, remove_folder, sweep, write_json

Leaf: TypeAlias = "bool | int | float | str | Tensor | None"
Tree: TypeAlias = "Leaf | list[Tree] | tuple[Tree, ...] | dict[str, Tree] | dict[int, Tree]"
"""Nested plain values and tensors, such as an optimizer's state_dict, a generator's get_state or random.getstate."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What one checkpoint holds."""

    step: int
    weights: dict[str, dict[str, Tensor]]
    state: dict[str, Tree]


def save(
    folder: Path,
    step: int,
    weights: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Tree],
    keep: int = 2,
) -> Path:
    """Write FOLDER/STEP/ whole and delete all but the last KEEP checkpoints there; the first of several processes does.

    Args:
      folder: the run's checkpoints folder.
      weights: group -> name -> tensor.
      state: what resuming needs, by name; anything that `Tree` allows comes back equal.
      keep: how many checkpoints stay; 0 keeps all.
    """
    if "state" in weights:
        raise ValueError("a group of weights cannot be named 'state'")
    target = folder / f"{step:08d}"
    if ranks.rank():
        return target
    tensors: dict[str, Tensor] = {}
    with new_folder(target) as part:
        for name, group in weights.items():
            save_tensors(part / f"{name}.safetensors", group)
        plain = {name: _plain(value, name, tensors) for name, value in state.items()}
        save_tensors(part / "state.safetensors", tensors)
        write_json(part / "state.json", plain)
    # What a killed save left behind, and what is too old.
    sweep(folder)
    for old in _complete(folder)[:-keep]:
        remove_folder(old)
    return target


def latest(folder: Path) -> Path | None:
    """The newest checkpoint in a run's checkpoints folder, if there is one."""
    return next(reversed(_complete(folder)), None)


def load(path: Path) -> Checkpoint:
    """Everything of one checkpoint; a RunError where PATH is none or is damaged."""
    try:
        plain = json.loads((path / "state.json").read_bytes())
        files = {file.stem: load_tensors(file) for file in sorted(path.glob("*.safetensors"))}
        tensors = files.pop("state")
        state = {str(name): _tree(value, tensors) for name, value in plain.items()}
        return Checkpoint(int(path.name), files, state)
    except (OSError, ValueError, KeyError, ModelError) as error:
        raise RunError(f"{path} is not a whole checkpoint: {error}") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Tensors as safetensors, from any device and with any strides; tied ones are written once per name."""
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; a ModelError where it is missing or anything else: pickle is never read."""
    if not path.is_file():
        raise ModelError(f"no file {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(
            f"{path} is not a safetensors file ({error}); other formats can run code when they are read and are refused"
        ) from error


def _complete(folder: Path) -> list[Path]:
    return sorted(
        (p for p in folder.glob("*") if p.is_dir() and re.fullmatch(r"\d{8,}", p.name)), key=lambda p: int(p.name)
    )


def _plain(value: Tree, name: str, tensors: dict[str, Tensor]) -> Json:
    """VALUE as JSON; its tensors go into TENSORS. Containers are tagged, so that 1 and "1", (1,) and [1] stay apart."""
    if isinstance(value, Tensor):
        # The number keeps {"a": {"b": x}} and {"a.b": x} apart.
        slot = f"{len(tensors)}:{name}"
        tensors[slot] = value
        return {"tensor": slot}
    if isinstance(value, dict):
        return {"dict": [(key, _plain(item, f"{name}.{key}", tensors)) for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_plain(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name}: a checkpoint cannot hold a {type(value).__name__}")


def _tree(value: Json, tensors: Mapping[str, Tensor]) -> Tree:
    if not isinstance(value, Mapping):
        assert value is None or isinstance(value, (bool, int, float, str))
        return value
    [(tag, content)] = value.items()
    if tag == "tensor":
        return tensors[str(content)]
    assert isinstance(content, list)
    if tag == "dict":
        return {key: _tree(item, tensors) for key, item in content}
    items = [_tree(item, tensors) for item in content]
    return items if tag == "list" else tuple(items)
