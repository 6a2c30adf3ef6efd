"""Several short contexts, each with its branches, in one row of tokens: one pass for a batch of judge's cases.

Owns the row: tokens, positions and the block mask that keeps everything apart; and running it in two parts, so that
what lies below a trained layer is computed once and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from pamdp.models.attention import placed
from pamdp.models.backbone import Backbone
from pamdp.models.families import entering, require_own_keys


@dataclass(frozen=True, slots=True)
class Group:
    """A context and the replies that may follow it, all as token ids."""

    context: Sequence[int]
    replies: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.context) + sum(map(len, self.replies))


@dataclass(frozen=True, slots=True)
class PackedRow:
    """Groups laid out one after another.

    Attributes:
      ids, positions: [L].
      mask: [1, 1, L, seen + L], True where a token may look; SEEN tokens before the row are in a cache.
      predicts: for every reply in order, indices of the tokens that predict it, and of its own tokens.
      replies: the tokens of every reply.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    predicts: list[tuple[Tensor, Tensor]]
    replies: list[Sequence[int]]


def pack(groups: Sequence[Group], device: torch.device, seen: int = 0) -> PackedRow:
    """Lay out GROUPS: a reply sees its context and itself, nothing else.

    SEEN tokens of the first context, never its last one, are left out: a cache holds them.
    """
    ids: list[int] = []
    positions: list[int] = []
    predicts: list[tuple[Tensor, Tensor]] = []
    mask = torch.zeros(sum(map(len, groups)), sum(map(len, groups)), dtype=torch.bool)
    for group in groups:
        start, n = len(ids), len(group.context)
        ids += group.context
        positions += range(n)
        mask[start : start + n, start : start + n] = torch.ones(n, n, dtype=torch.bool).tril()
        for reply in group.replies:
            at, m = len(ids), len(reply)
            ids += reply
            positions += range(n, n + m)
            mask[at : at + m, start : start + n] = True
            mask[at : at + m, at : at + m] = torch.ones(m, m, dtype=torch.bool).tril()
            own = torch.arange(at, at + m)
            before = torch.cat([torch.tensor([start + n - 1]), own[:-1]])
            predicts.append(((before - seen).to(device), (own - seen).to(device)))
    return PackedRow(
        torch.tensor(ids[seen:], device=device),
        torch.tensor(positions[seen:], device=device),
        mask[None, None, seen:].to(device),
        predicts,
        [reply for group in groups for reply in group.replies],
    )


def run_layers(
    backbone: Backbone, row: PackedRow, states: Tensor | None, first: int, last: int, cache: DynamicCache | None = None
) -> Tensor:
    """Hidden states after layer LAST of a row, from its embeddings (STATES None) or those after layer FIRST, [L, d].

    LAST -1 are those after the final norm. CACHE holds keys and values of what the row has seen; those of the row are
    added. A ModelError where the model cannot begin behind a layer.
    """
    if first:
        require_own_keys(backbone.model)
    # States below a layer may have been kept in half precision.
    given = torch.empty(0) if states is None else states[None].to(backbone.dtype)
    with entering(backbone.layers[:first], given), _placed(row):
        return backbone.run(last, True, **_inputs(row, cache))[0]


def read_row(backbone: Backbone, row: PackedRow, layer: int) -> tuple[Tensor, Tensor]:
    """Hidden states of a row after LAYER and after the final norm, [L, d] each, in one pass."""
    with _placed(row):
        return backbone.run(layer, False, **_inputs(row, None))


def halved(states: Tensor) -> Tensor:
    """States in two bytes a number, to be kept; `run_layers` takes them as they are."""
    return states.half() if states.dtype == torch.float32 else states


def _placed(row: PackedRow) -> AbstractContextManager[None]:
    at = row.positions[None]
    seen = torch.arange(row.mask.shape[3] - at.shape[1], device=at.device)[None]
    return placed(at, torch.cat([seen, at], 1), row.mask)


def _inputs(row: PackedRow, cache: DynamicCache | None) -> dict[str, object]:
    # Without a cache and a mask transformers looks for several texts in the positions; a mask of ones keeps it from it.
    given = {"attention_mask": torch.ones_like(row.ids)[None]} if cache is None else {"past_key_values": cache}
    return {"input_ids": row.ids[None], "position_ids": row.positions[None], "use_cache": cache is not None, **given}
