"""Several histories whose new tokens stand in one row: which models can, which go together, what such a pass is given.

Owns nothing of what the tokens are: whole turns (prefill.py) or replies (packed_branches.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache

from pamdp.models.attention import NAME, SideBySide
from pamdp.models.backbone import Backbone
from pamdp.models.families import sees_all

R = TypeVar("R")


def stands_beside(backbone: Backbone) -> bool:
    """Whether the model has the attention that keeps histories apart; a layer that forgets needs masks instead."""
    return backbone.model.config._attn_implementation == NAME and sees_all(backbone.model)


def rows_of(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Numbers of what has SIZES, in order, in as few rows of at most MOST as that gives; what is longer is alone."""
    rows: list[list[int]] = []
    room = 0
    for i, size in enumerate(sizes):
        if not rows or size > room:
            rows.append([])
            room = most
        rows[-1].append(i)
        room -= size
    return rows


def run_beside(
    backbone: Backbone,
    caches: Sequence[DynamicCache],
    new: Sequence[int],
    run: Callable[[dict[str, object]], R],
    sees: Sequence[Tensor] | None = None,
) -> R | None:
    """What RUN makes of its pass, which has to hand on what it is given; CACHES grow.

    Args:
      caches, new, sees: see `SideBySide`.

    Returns:
      None where a layer does not hand it on, so that nothing was computed.
    """
    row = SideBySide(caches, new, torch.empty(0, dtype=backbone.dtype, device=backbone.device), sees)
    # A mask of four dimensions keeps transformers from making one; that it fits nothing stops a layer which does not
    # hand `beside` on to its attention: there all histories would see one another.
    blank = torch.ones(1, 1, 1, 0, dtype=torch.bool, device=backbone.device)
    try:
        return run({"attention_mask": blank, "past_key_values": row, "beside": row})
    except RuntimeError:
        if row.layers_seen:
            raise
        return None
