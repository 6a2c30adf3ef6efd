"""How much memory a model's cloning and rollouts take, from its config alone: nothing is loaded.

Owns the arithmetic. Weights, gradients, optimizer states, keys and values are counted; what else a pass keeps is an
estimate (checkpointing.FLOATS): the least, since a GPU with room computes nothing again (checkpointing.ROOM). What
libraries take for themselves is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pamdp.config import Config
from pamdp.models.checkpointing import FLOATS
from pamdp.models.embedded import empty_model
from pamdp.models.families import sees_all, trunk_of
from pamdp.models.place import Place
from pamdp.train.bc import most_tokens
from pamdp.types import Dialogue

CHARACTERS = 4.0
"""Characters of a token, about."""
FOUR_BITS = 0.53
"""Bytes of a weight in four bits, with its share of the scales."""
ROWS = 64
"""Replies that are written at once, at most."""


@dataclass(frozen=True, slots=True)
class Memory:
    """One kind of work.

    Attributes:
      work: what is done.
      parameters: weights of the model.
      weights_gb, learned_gb, cache_gb, passes_gb: the model; what learns with gradients and optimizer; keys and values;
        what a pass keeps for its gradient (10^9 bytes).
      tokens: read and written, all passes over the data together.
    """

    work: str
    parameters: int
    weights_gb: float
    learned_gb: float
    cache_gb: float
    passes_gb: float
    tokens: int

    @property
    def total_gb(self) -> float:
        """All of it at once."""
        return self.weights_gb + self.learned_gb + self.cache_gb + self.passes_gb


def memory_of(config: Config, dialogues: Sequence[Dialogue], place: Place) -> list[Memory]:
    """Memory of cloning in each way and of rollouts at PLACE, at the sizes of the settings.

    A ModelError for a missing model.
    """
    dtype_bytes = place.dtype.itemsize
    model = empty_model(config.model.name)
    parameters = sum(weight.numel() for weight in model.parameters())
    text, clone, rl = model.config.get_text_config(), config.clone, config.rl
    kv = _kv_numbers(model) * dtype_bytes
    turns = max((len(d.turns) for d in dialogues), default=rl.horizon)
    history = min([clone.max_context, *_longest(dialogues)])
    read = sum(len(m.content) for d in dialogues for m in d.history(len(d.turns) - 1)) / CHARACTERS
    once = history + turns * clone.max_reply
    if sees_all(model):
        once = max(once, min(clone.batch_size * once, most_tokens(clone, place.device)))
    kept = once * text.num_hidden_layers * FLOATS * text.hidden_size * dtype_bytes
    if config.model.checkpointing != "off":
        kept *= 0.45

    def row(work: str, bits: str, learned: float, cache: float, passes: float, tokens: float) -> Memory:
        gb = [x / 1e9 for x in (_weights(model, bits, dtype_bytes), learned, cache, passes)]
        return Memory(work, parameters, gb[0], gb[1], gb[2], gb[3], round(tokens))

    # float32 weights, their gradients and two states of AdamW; full cloning adds gradients of the model's own type.
    adapter, half = 16.0 * _lora(model, clone.lora_rank), dtype_bytes < 4
    full = parameters * (16.0 + dtype_bytes if half else 12.0)
    learn = clone.epochs * (read + turns * len(dialogues) * clone.max_reply)
    rows = min(ROWS, rl.dialogues * rl.samples)
    cache = kv * (rows * (history + rl.max_reply) + rl.dialogues * history)
    written = rl.rounds * (read + sum(len(d.turns) for d in dialogues) * rl.samples * rl.max_reply)
    bits = config.model.quantization
    return [
        row("cloning, LoRA", "none", adapter, kv * once, kept, learn),
        row("cloning, LoRA, 4bit", "4bit", adapter, kv * once, kept, learn),
        row("cloning, full", "none", full, kv * once, kept, learn),
        row("rollouts", bits, 0.0, cache, 0.0, written),
    ]


def _longest(dialogues: Sequence[Dialogue]) -> list[int]:
    sizes = [sum(len(m.content) for m in d.history(len(d.turns) - 1)) for d in dialogues]
    return [round(max(sizes) / CHARACTERS)] if sizes else []


def _kv_numbers(model: PreTrainedModel) -> int:
    """Numbers that are kept of a token, in all layers."""
    text = model.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * int(text.num_hidden_layers) * int(heads) * int(size)


def _linear(model: PreTrainedModel) -> list[tuple[int, int]]:
    """Sizes of the linear modules of all layers."""
    modules = trunk_of(model)[1].modules()
    shapes = [tuple(m.weight.shape) for m in modules if isinstance(m, (nn.Linear, Conv1D))]
    return [(int(a), int(b)) for a, b in shapes]


def _lora(model: PreTrainedModel, rank: int) -> int:
    return sum(rank * (a + b) for a, b in _linear(model))


def _weights(model: PreTrainedModel, bits: str, dtype_bytes: int) -> float:
    every = int(sum(weight.numel() for weight in model.parameters()))
    small = sum(a * b for a, b in _linear(model)) if bits == "4bit" else 0
    return (every - small) * dtype_bytes + small * FOUR_BITS
