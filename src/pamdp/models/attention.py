"""Attention of few queries over many keys, where several query heads share one pair of key and value heads.

Owns how a masked pass reads keys and values: each once. transformers copies them for every query head wherever a mask
meets more than one new token, which is the case in every pass over branches and in the first pass of every reply; on a
CPU those copies cost more than the attention. Owns also how several histories attend whose new tokens stand in one row,
and where the tokens of a pass stand. What a layer may see of a token's past is transformers' to say (masking_utils).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from pamdp.errors import ModelError

NAME = "pamdp_grouped"
"""Name of this attention among those of transformers."""


class SideBySide(Cache):  # type: ignore[misc]  # transformers is not typed
    """Histories whose new tokens stand in one row, one after another; each sees itself alone.

    A pass gets it twice: as `past_key_values` and, for `grouped_attention`, as `beside`. Everything but attention then
    runs on all the new tokens at once. `layers_seen` has the numbers of the layers that kept the histories apart.

    Args:
      caches: keys and values of each history so far; they grow.
      new: how many tokens each has in the row.
      sees: what the n new tokens of each may see of its p past ones and of themselves, boolean, [1, 1, n, p + n];
        None: all that is not behind them.
      like: gives the type and device of masks.
    """

    def __init__(
        self,
        caches: Sequence[DynamicCache],
        new: Sequence[int],
        like: Tensor,
        sees: Sequence[Tensor] | None = None,
    ) -> None:
        super().__init__(layers=[])
        self.caches, self.new = caches, list(new)
        self.layers_seen: set[int] = set()
        self.given: tuple[Tensor, Tensor] | tuple[None, None] = (None, None)
        seen: Sequence[Tensor | None] = sees or [
            like.new_ones(1, 1, n, p + n, dtype=torch.bool).tril(p) if (p := cache.get_seq_length()) else None
            for cache, n in zip(caches, new, strict=True)
        ]
        self.masks = [None if mask is None else additive(mask, like.dtype) for mask in seen]

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """The new ones as they are: `parts` adds them to what each history has."""
        self.given = keys, values
        return keys, values

    def parts(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        """Query, keys, values and mask of each history, from those [1, heads, n, d] of the whole row."""
        if key is not self.given[0] or value is not self.given[1]:
            raise RuntimeError("this layer keeps something else than what it attends to")
        self.layers_seen.add(layer)
        split = (torch.split(x, self.new, dim=2) for x in (query, key, value))
        for cache, mask, q, k, v in zip(self.caches, self.masks, *split, strict=True):
            yield q, *cache.update(k, v, layer), mask


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    beside: SideBySide | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """As transformers' `sdpa`: the query heads of a group stand beside one another as further queries.

    Args:
      query: [rows, heads, n, d].
      key, value: [rows, groups, width, d], with heads a multiple of groups.
      attention_mask: [rows or 1, 1, n, width], the same for all heads; without one, with one for each head, and where
        more is to be done to scores than to scale and mask them, transformers' own is called.
      beside: the one row holds several histories; then no mask counts but theirs.

    Returns:
      [rows, n, heads, d], and no weights.
    """
    if beside is not None:
        # A module's attributes may be tensors and modules to mypy; this one is the number of the layer.
        parts = beside.parts(module.layer_idx, query, key, value)  # type: ignore[arg-type]
        alone = [
            grouped_attention(module, q, k, v, mask, dropout, scaling, None, **others)[0] for q, k, v, mask in parts
        ]
        return torch.cat(alone, dim=1), None
    rows, heads, n, d = query.shape
    groups = key.shape[1]
    more = any(others.get(name) is not None for name in ("softcap", "position_bias"))
    if attention_mask is None or attention_mask.shape[1] != 1 or heads == groups or more:
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
        return out, None
    shared = heads // groups
    attend = nn.functional.scaled_dot_product_attention
    if rows == 1:
        # A group takes the place of a row: all its heads then read keys and mask where they lie.
        keys, values = (x[0, :, None].expand(-1, shared, -1, -1) for x in (key, value))
        out = attend(query.reshape(groups, shared, n, d), keys, values, attention_mask, dropout, scale=scaling)
    else:
        mask = attention_mask[:, :, None].expand(-1, -1, shared, -1, -1).flatten(2, 3)
        out = attend(query.reshape(rows, groups, shared * n, d), key, value, mask, dropout, scale=scaling)
    return out.reshape(rows, heads, n, value.shape[-1]).transpose(1, 2).contiguous(), None


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as what is added to scores: 0 where a token may look, -inf elsewhere.

    Made once for a pass; of a boolean mask every layer makes, and for a gradient keeps, numbers of its own.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))


def use_grouped_attention(model: PreTrainedModel) -> None:
    """Have MODEL attend so, if it is one that uses transformers' `sdpa`."""
    if getattr(model.config, "_attn_implementation", None) == "sdpa":
        model.set_attn_implementation(NAME)


Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""A mask function of transformers: may the query at one position see the key at another (batch, head, query, key)?"""


@dataclass(slots=True)
class _Placement:
    """What `placed` was told, and whether a model asked for it."""

    at: Tensor
    columns: Tensor
    sees: Tensor | None
    asked: bool = False


_placement: ContextVar[_Placement | None] = ContextVar("placement", default=None)


@contextmanager
def placed(at: Tensor, columns: Tensor, sees: Tensor | None = None) -> Iterator[None]:
    """Say where the tokens of passes inside the block stand, in whatever order they lie in memory.

    Each layer's own rule (causal, a sliding window, chunks) is asked about these positions.

    Args:
      at: positions of the new tokens, [rows or 1, n].
      columns: positions of all keys, those of the new tokens among them, [rows or 1, width].
      sees: what a token may look at besides, boolean, [rows or 1, 1, n, width]; None: at all that the rule lets it.

    Raises:
      ModelError: no mask was asked for: the model makes its own, and what was computed is wrong.
    """
    placement = _Placement(at, columns, sees)
    token = _placement.set(placement)
    try:
        yield
    finally:
        _placement.reset(token)
    if not placement.asked:
        raise ModelError("this model cannot be used: it does not ask transformers what a token may see")


def _masks(standard: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    """A mask interface of transformers: STANDARD, or inside `placed` the mask of what stands there."""

    def mask(*given: object, **named: object) -> Tensor | None:
        placement = _placement.get()
        # What transformers names has no types; _mask_of takes of it what it knows.
        return standard(*given, **named) if placement is None else _mask_of(placement, **named)  # type: ignore[arg-type]

    return mask


def _mask_of(
    placement: _Placement, mask_function: Rule, dtype: torch.dtype, use_vmap: bool = False, **_: object
) -> Tensor:
    """The additive mask of a placement under a layer's rule, [rows or 1, 1, n, width]."""
    placement.asked = True
    at, columns, sees = placement.at, placement.columns, placement.sees
    if use_vmap:
        raise ModelError("this model adds a rule of its own to causal attention; it cannot be used")
    batch = torch.arange(len(at), device=at.device)[:, None, None, None]
    head = batch.new_zeros(1, 1, 1, 1)
    may = mask_function(batch, head, at[:, None, :, None], columns[:, None, None, :])
    return additive(may if sees is None else may & sees, dtype)


AttentionInterface.register(NAME, grouped_attention)
for _name, _standard in ((NAME, sdpa_mask), ("sdpa", sdpa_mask), ("eager", eager_mask)):
    AttentionMaskInterface.register(_name, _masks(_standard))
