"""Keys and values of replies that are being written: one place for each, written in place and never copied to grow.

Owns the memory of a batch that decodes. A row's token number i stands in column i of its place, so rows of any length
lie beside one another without padding between tokens, and a new row may take any place that another has left. Knows
nothing of what is written.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer


class SlotCache(Cache):  # type: ignore[misc]  # transformers is not typed
    """A cache of fixed size for transformers: at most PLACES rows of WIDTH tokens, with layers LIKE another's."""

    def __init__(self, like: DynamicCache, places: int, width: int) -> None:
        super().__init__(layers=[_SlotLayer(layer.keys, layer.values, places, width) for layer in like.layers])

    def fill(self, place: int, source: Cache, length: int, row: int = 0) -> None:
        """Copy the first LENGTH tokens of a row of a cache (which may be this one) into a place."""
        for layer, other in zip(self.layers, source.layers, strict=True):
            layer.keys[place, :, :length] = other.keys[row, :, :length]
            layer.values[place, :, :length] = other.values[row, :, :length]

    def open(self, first: int, last: int, at: Tensor, width: int) -> None:
        """Say what the next pass runs: places FIRST to LAST, new tokens in columns AT [rows, n], WIDTH columns seen."""
        rows = torch.arange(last - first, device=at.device)[:, None]
        for layer in self.layers:
            layer.span, layer.rows, layer.at, layer.width = slice(first, last), rows, at, width


class _SlotLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """One layer's part, [places, heads, width, d]; zeros at first, because what is never seen must still be finite."""

    span: slice
    rows: Tensor
    at: Tensor
    width: int

    def __init__(self, keys: Tensor, values: Tensor, places: int, width: int) -> None:
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.keys, self.values = (_zeros(x, places, x.shape[1], width, x.shape[3]) for x in (keys, values))
        self.is_initialized = True

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write new keys and values [rows, heads, n, d] where `open` said; gives views of all that may be seen."""
        own_keys, own_values = self.keys[self.span], self.values[self.span]
        own_keys[self.rows, :, self.at] = keys.transpose(1, 2)
        own_values[self.rows, :, self.at] = values.transpose(1, 2)
        return own_keys[:, :, : self.width], own_values[:, :, : self.width]

    def get_seq_length(self) -> int:
        """Columns that were in use before the pass that `open` announced."""
        return self.width - int(self.at.shape[1])


def _zeros(like: Tensor, *shape: int) -> Tensor:
    """Zeros of the type and device of LIKE; a CPU takes memory where it is written: few rows fill their places."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    return torch.from_numpy(np.zeros(shape, dtype=f"i{like.element_size()}")).view(like.dtype)
