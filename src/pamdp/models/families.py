"""What differs between families of language models: where the layers are, how logits are made, what cannot be used.

Owns the few places where a model is not asked by a name that all share. What a layer may see is in attention.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer
from transformers.utils import ModelOutput

from pamdp.errors import ModelError


def require_usable(model: PreTrainedModel) -> None:
    """A ModelError for a model whose layers carry more from token to token than keys and values.

    Replies to all turns share one pass over their dialogue; a state that each token overwrites cannot be shared. Nor
    can queries that a layer scales by where they lie in memory, as those with chunked attention do (Llama 4).
    """
    config = model.config.get_text_config()
    kept = {type(layer) for layer in DynamicCache(config=config).layers}
    if model._is_stateful or not kept <= {DynamicLayer, DynamicSlidingWindowLayer, DummyLayer}:
        raise ModelError(
            f"models of the family {config.model_type!r} cannot be used: their layers keep a running state (recurrent, "
            "convolutional or indexed) beside keys and values; docs/models.md lists the families that can be"
        )
    if getattr(config, "attention_chunk_size", None):
        raise ModelError(
            f"models of the family {config.model_type!r} cannot be used: they attend in chunks; docs/models.md lists "
            "the families that can be"
        )


def most_positions(model: PreTrainedModel) -> int | None:
    """From how many tokens on a text's length changes how all its positions are turned; None: it never does.

    A longer text would change what is computed for shorter ones beside it, and keys that are kept would be wrong.
    """
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    limits = [
        one.get("original_max_position_embeddings") or model.config.get_text_config().max_position_embeddings
        for one in (rope, *rope.values())
        if isinstance(one, dict) and one.get("rope_type") in ("longrope", "dynamic")
    ]
    return min(limits, default=None)


def sees_all(model: PreTrainedModel) -> bool:
    """Whether every layer keeps and sees all that came before."""
    kept = DynamicCache(config=model.config.get_text_config()).layers
    return all(type(layer) is DynamicLayer for layer in kept)


def require_own_keys(model: PreTrainedModel) -> None:
    """A ModelError for a model that cannot be run in two parts: upper layers use the keys of lower ones (Gemma 4)."""
    config = model.config.get_text_config()
    if any(type(layer) is DummyLayer for layer in DynamicCache(config=config).layers):
        raise ModelError(
            f"models of the family {config.model_type!r} that share keys between layers cannot carry an embedded judge"
        )


def trunk_of(model: PreTrainedModel) -> tuple[PreTrainedModel, nn.ModuleList]:
    """The part of a model that gives final states, and its layers, whatever they are called.

    A ModelError where there is no list of all layers.
    """
    config = model.config.get_text_config()
    for module in model.get_decoder().modules():
        for child in module.children():
            if isinstance(child, nn.ModuleList) and len(child) == config.num_hidden_layers:
                return module, child
    raise ModelError(
        f"models of the family {config.model_type!r} cannot be used: they have no list of their "
        f"{config.num_hidden_layers} layers"
    )


def ends_of(model: PreTrainedModel) -> list[int]:
    """The tokens that end what the model writes, as its makers set them."""
    found = getattr(model.generation_config, "eos_token_id", None)
    return [] if found is None else [found] if isinstance(found, int) else list(found)


def numbers_of(model: PreTrainedModel) -> tuple[str, str]:
    """The type that a model computes in, and how its linear layers are stored: "none" or "4bit"."""
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return dtype, "4bit" if getattr(model, "is_loaded_in_4bit", False) else "none"


def logits_of(model: PreTrainedModel, trunk: PreTrainedModel, states: Tensor) -> Tensor:
    """Logits [n, vocabulary] of final states [n, d], as the model itself makes them: some scale or cap them."""
    ids = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
    with _instead(trunk, lambda *_, **__: _Final(states[None])):
        return torch.as_tensor(model(input_ids=ids, use_cache=False).logits[0])


@contextmanager
def entering(layers: Iterable[nn.Module], states: Tensor) -> Iterator[None]:
    """Passes inside the block skip LAYERS, a trunk's first ones, whose result STATES [rows, tokens, d] is."""
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(_instead(layer, lambda *_, **__: states))
        yield


def inputs_of(trunk: PreTrainedModel, embeds: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """What a trunk is given for embeddings [rows, n, d] of tokens IDS [rows, n], -1 where one is no token's.

    Some models (Gemma 4) look tokens up once more for the layers; an embedding of no token's counts as padding there,
    as one of a picture does.
    """
    if not getattr(trunk, "hidden_size_per_layer_input", 0):
        return {"inputs_embeds": embeds}
    known = ids.masked_fill(ids < 0, trunk.config.pad_token_id or 0)
    return {"inputs_embeds": embeds, "per_layer_inputs": trunk.get_per_layer_inputs(known, embeds)}


@dataclass
class _Final(ModelOutput):  # type: ignore[misc]  # transformers is not typed
    """A trunk's answer that holds its last states; whatever else a model looks for in it is None."""

    last_hidden_state: Tensor

    def __getattr__(self, name: str) -> None:
        return None


@contextmanager
def _instead(module: nn.Module, forward: Callable[..., object]) -> Iterator[None]:
    """Call FORWARD in place of a module's own inside the block: an attribute hides a method while it is there."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
