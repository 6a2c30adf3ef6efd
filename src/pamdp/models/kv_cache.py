"""Keys and values of replies that are being written: one place for each, written in place and never copied to grow.

Owns the memory of a batch that decodes. A row's token number i stands in column i of its place, so rows of any length
lie beside one another without padding between tokens, and a new row may take any place that another has left. Knows
nothing of what is written.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer


@dataclass(slots=True)
class _Pass:
    """What all layers write and show in the pass that runs; see `SlotCache.open`."""

    span: slice = field(default_factory=lambda: slice(0))
    rows: Tensor = field(default_factory=lambda: torch.empty(0))
    at: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    width: int = 0


class SlotCache(Cache):  # type: ignore[misc]  # transformers is not typed
    """A cache of fixed size for transformers: at most PLACES rows of WIDTH tokens, with layers LIKE another's."""

    def __init__(self, like: DynamicCache, places: int, width: int) -> None:
        self.now = _Pass()
        super().__init__(
            layers=[_SlotLayer(layer.keys, layer.values, places, width, self.now) for layer in like.layers]
        )

    def fill(self, place: int, source: Cache, length: int) -> None:
        """Copy the first LENGTH tokens of a cache of one row into a place."""
        for layer, other in zip(self.layers, source.layers, strict=True):
            layer.keys[place, :, :length] = other.keys[0, :, :length]
            layer.values[place, :, :length] = other.values[0, :, :length]

    def move(self, to: Tensor, of: Tensor, width: int) -> None:
        """Copy the first WIDTH columns of places OF into places TO."""
        for layer in self.layers:
            layer.keys[to, :, :width] = layer.keys[of, :, :width]
            layer.values[to, :, :width] = layer.values[of, :, :width]

    def open(self, first: int, last: int, at: Tensor, width: int) -> None:
        """Say what the next pass runs: places FIRST to LAST, new tokens in columns AT [rows, n], WIDTH columns seen."""
        self.now.span, self.now.at, self.now.width = slice(first, last), at, width
        self.now.rows = torch.arange(last - first, device=at.device)[:, None]


class _SlotLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """One layer's part, [places, heads, width, d]; zeros at first, because what is never seen must still be finite."""

    def __init__(self, keys: Tensor, values: Tensor, places: int, width: int, now: _Pass) -> None:
        super().__init__()
        self.dtype, self.device, self.now = keys.dtype, keys.device, now
        self.keys, self.values = (_zeros(x, places, x.shape[1], width, x.shape[3]) for x in (keys, values))
        self.is_initialized = True

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write new keys and values [rows, heads, n, d] where `open` said; gives views of all that may be seen."""
        now = self.now
        own_keys, own_values = self.keys[now.span], self.values[now.span]
        own_keys[now.rows, :, now.at] = keys.transpose(1, 2)
        own_values[now.rows, :, now.at] = values.transpose(1, 2)
        return own_keys[:, :, : now.width], own_values[:, :, : now.width]

    def get_seq_length(self) -> int:
        """Columns that were in use before the pass that `open` announced."""
        return self.now.width - int(self.now.at.shape[1])


def _zeros(like: Tensor, *shape: int) -> Tensor:
    """Zeros of the type and device of LIKE; a CPU takes memory where it is written: few rows fill their places.

    Plain pages: NumPy asks for huge ones, and the first token of every row, head and layer would take a whole one.
    """
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    return torch.frombuffer(mmap.mmap(-1, math.prod(shape) * like.element_size()), dtype=like.dtype).view(shape)
