"""LoRA adapters on a backbone: made, saved and loaded by name, without pickle.

Owns what of the backbone is trainable. Knows nothing of what is learned.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer, cast_adapter_dtype
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from pamdp.errors import ModelError
from pamdp.models.backbone import Backbone

A = "lora_A.weight"
"""How the names of the weights end that take a module's input down to the rank."""


class Adapter:
    """A LoRA adapter of one policy: it stays on its backbone for as long as somebody holds this.

    Several policies share a backbone, each with an adapter of its own; whoever copies a policy shares its adapter.
    """

    __slots__ = ("__weakref__", "name")

    def __init__(self, backbone: Backbone, rank: int, first_layer: int = 0, seed: int = 0) -> None:
        used = getattr(backbone.model, "peft_config", {})
        self.name = next(name for n in range(len(used) + 1) if (name := f"policy{n or ''}") not in used)
        add_adapter(backbone, self.name, rank, first_layer, seed)
        # Not at the end of the program: taking modules apart then is work for nobody.
        weakref.finalize(self, _drop, weakref.ref(backbone), self.name).atexit = False


def _drop(backbone: weakref.ref[Backbone], name: str) -> None:
    if (alive := backbone()) is not None:
        alive.defer(partial(alive.delete_adapter, name))


def add_adapter(
    backbone: Backbone, name: str, rank: int, first_layer: int = 0, seed: int = 0, last: int | None = None
) -> None:
    """A new LoRA adapter (zero at first) on the layers FIRST_LAYER to LAST; it is left inactive and frozen.

    One of the same name is replaced.
    """
    _inject(backbone, name, rank, [f"{module}.{A}" for module in linear_names(backbone, first_layer, last)], seed)


def restore_adapter(backbone: Backbone, name: str, tensors: dict[str, Tensor]) -> None:
    """A stored adapter as it was: rank and modules are those of its weights."""
    down = [key for key in tensors if key.endswith(A)]
    _inject(backbone, name, len(tensors[down[0]]), down)
    load_adapter(backbone, name, tensors)


def _inject(backbone: Backbone, name: str, rank: int, weights: Sequence[str], seed: int = 0) -> None:
    """Modules are told by their WEIGHTS, as the names of some modules are taken by PEFT for experts of all layers."""
    backbone.delete_adapter(name)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="named by their weights")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Several adapters on one model are meant: one writes, one judges.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        warnings.filterwarnings("ignore", message="While injecting the PEFT adapters, an inconsistency")
        # GPT-2's modules hold their weights the other way round; PEFT sees it, sets it and says so.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        torch.manual_seed(seed)
        inject_adapter_in_model(config, backbone.model, name, state_dict=dict.fromkeys(weights))
    cast_adapter_dtype(backbone.model, name)  # what learns is float32, whatever the backbone is
    backbone.model._hf_peft_config_loaded = True  # as its own `add_adapter` does, which takes no names of weights
    backbone.model.set_adapter(name)
    backbone.model.requires_grad_(False)
    backbone.switch(None)


def linear_names(backbone: Backbone, first: int = 0, last: int | None = None) -> list[str]:
    """Full names of all linear modules of the layers FIRST to LAST, whatever the model calls them.

    As PEFT's "all-linear", which knows no layers. A ModelError where there are none.
    """
    root = next(name for name, module in backbone.model.named_modules() if module is backbone.layers)
    wanted, names = range(len(backbone.layers))[first:last], list[str]()
    for name, module in backbone.layers.named_modules():
        inside = name.startswith(tuple(f"{known}." for known in names))  # an adapter's own parts
        if isinstance(module, (nn.Linear, Conv1D, BaseTunerLayer)) and not inside and int(name.split(".")[0]) in wanted:
            names.append(name)
    if not names:
        raise ModelError(f"no linear modules are found in {backbone.name or 'this model'}: it cannot carry an adapter")
    return [f"{root}.{name}" for name in names]


def train_backbone(backbone: Backbone, what: Literal["frozen", "lora", "full"], adapter: str | None = None) -> None:
    """Make nothing, the parameters of one adapter, or every weight of the backbone trainable."""
    backbone.kept = None  # learning needs the memory
    for name, parameter in backbone.model.named_parameters():
        lora = ".lora_" in name
        wanted = (what == "full" and not lora) or (what == "lora" and lora and f".{adapter}." in name)
        parameter.requires_grad_(wanted)


def adapter_tensors(backbone: Backbone, name: str) -> dict[str, Tensor]:
    """The weights of an adapter, by PEFT's names."""
    tensors = get_peft_model_state_dict(backbone.model, adapter_name=name)
    return {key: value.detach().clone() for key, value in tensors.items()}


def load_adapter(backbone: Backbone, name: str, tensors: dict[str, Tensor]) -> None:
    """Set the weights of an adapter that was added with the same shape."""
    set_peft_model_state_dict(backbone.model, tensors, adapter_name=name)
