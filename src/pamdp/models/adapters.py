"""LoRA adapters on a backbone: made, saved and loaded by name, without pickle.

Owns what of the backbone is trainable. Knows nothing of what is learned.
"""

from __future__ import annotations

import warnings
import weakref
from functools import partial
from typing import Literal

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from pamdp.models.backbone import Backbone

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


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
    backbone.delete_adapter(name)
    layers = list(range(first_layer, last or int(backbone.model.config.num_hidden_layers)))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Several adapters on one model are meant: one writes, one judges.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        torch.manual_seed(seed)
        backbone.model.add_adapter(
            LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(TARGETS), layers_to_transform=layers), name
        )
    backbone.model.requires_grad_(False)
    backbone.switch(None)


def train_backbone(backbone: Backbone, what: Literal["frozen", "lora", "full"], adapter: str | None = None) -> None:
    """Make nothing, the parameters of one adapter, or every weight of the backbone trainable."""
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
