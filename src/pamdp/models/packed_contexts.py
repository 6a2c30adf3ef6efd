"""Several short contexts, each with its branches, in one row of tokens: one pass for a batch of judge's cases.

Owns the row: tokens, positions and the block mask that keeps everything apart; and running it in two parts, so that
what lies below a trained layer is computed once and kept. Needs a Llama-like trunk (layers, rotary_emb, norm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from pamdp.models.attention import additive
from pamdp.models.backbone import Backbone


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
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    predicts: list[tuple[Tensor, Tensor]]


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
    )


def run_layers(
    backbone: Backbone, row: PackedRow, states: Tensor | None, first: int, last: int, cache: DynamicCache | None = None
) -> Tensor:
    """Hidden states after layer LAST of a row, from its embeddings (STATES None) or those after layer FIRST, [L, d].

    CACHE holds keys and values of what the row has seen; those of the row are added.
    """
    trunk = backbone.trunk
    x = backbone.embed(row.ids)[None] if states is None else states[None]
    positions, mask = row.positions[None], additive(row.mask, x.dtype)
    # A trunk is an nn.Module to mypy, whose attributes may be tensors as well as modules.
    rotary = trunk.rotary_emb(x, position_ids=positions)  # type: ignore[operator]
    for layer in list(trunk.layers)[first:last]:  # type: ignore[arg-type]
        out = layer(x, attention_mask=mask, position_embeddings=rotary, position_ids=positions, past_key_values=cache)
        x = out[0] if isinstance(out, tuple) else out
    return torch.as_tensor(x[0])


def final_norm(backbone: Backbone, states: Tensor) -> Tensor:
    """The trunk's last normalisation."""
    # As above: mypy takes the attribute of an nn.Module for a tensor, too.
    return torch.as_tensor(backbone.trunk.norm(states))  # type: ignore[operator]
