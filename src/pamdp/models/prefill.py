"""Clean passes over several histories at once: the products run over all their new tokens, attention over each alone.

Owns how many tokens run together. Each history comes out as `Backbone.prefix` gives it by itself: products with few
rows reach only part of a processor's rate, and a dialogue's turn brings few new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache

from pamdp.models.attention import NAME, SideBySide
from pamdp.models.backbone import Backbone
from pamdp.models.chat import Encoded
from pamdp.models.families import sees_all
from pamdp.models.prefix import Prefix, continues, fork, grown

TOKENS, WIDE = 512, 8192
"""Most tokens that run together, on a CPU and elsewhere. On a CPU products are no faster beyond it, and what lies
between them leaves the caches; a GPU has nothing to do while hundreds wait for their kernels to be launched."""


def prefill(
    backbone: Backbone,
    histories: Sequence[Encoded],
    layer: int = -1,
    before: Sequence[Prefix | None] = (),
    shallow: bool = False,
) -> list[Prefix]:
    """A clean pass over each history (with gradient where parameters want it).

    Args:
      layer, shallow: as in `Backbone.prefix`.
      before: an earlier prefix of each, which it has to continue, or None; empty for none at all.
    """
    earlier = list(before) or [None] * len(histories)
    out: list[Prefix] = []
    for encoded in histories:
        backbone.require_room(len(encoded.ids))
    for chosen in _together(backbone, histories, earlier):
        run, known = [histories[i] for i in chosen], [earlier[i] for i in chosen]
        if len(chosen) == 1:
            out.append(backbone.prefix(run[0], layer, known[0], shallow))
        else:
            out += _pass(backbone, run, layer, known, shallow)
    return out


def together(backbone: Backbone) -> int:
    """Most tokens of histories that run together where BACKBONE is."""
    return TOKENS if backbone.device.type == "cpu" else WIDE


def _together(backbone: Backbone, histories: Sequence[Encoded], before: Sequence[Prefix | None]) -> list[list[int]]:
    """Indices of the histories that run together, in their order."""
    alone = not _attends_so(backbone)
    groups: list[list[int]] = []
    room = 0
    for i, (encoded, prefix) in enumerate(zip(histories, before, strict=True)):
        new = len(encoded.ids) - (0 if prefix is None else len(prefix.encoded.ids))
        if not groups or alone or new > room:
            groups.append([])
            room = together(backbone)
        groups[-1].append(i)
        room -= new
    return groups


def _attends_so(backbone: Backbone) -> bool:
    """Whether the model has the attention that keeps histories apart; a layer that forgets needs masks instead."""
    return backbone.model.config._attn_implementation == NAME and sees_all(backbone.model)


def _pass(
    backbone: Backbone, histories: Sequence[Encoded], layer: int, before: Sequence[Prefix | None], shallow: bool
) -> list[Prefix]:
    done = [continues(encoded, prefix) for encoded, prefix in zip(histories, before, strict=True)]
    caches = [DynamicCache() if prefix is None else fork(prefix.cache) for prefix in before]
    new = [len(encoded.ids) - n for encoded, n in zip(histories, done, strict=True)]
    device = backbone.device
    row = SideBySide(caches, new, torch.empty(0, dtype=backbone.dtype, device=device))
    given: dict[str, object] = dict(
        input_ids=torch.tensor([[i for e, n in zip(histories, done, strict=True) for i in e.ids[n:]]], device=device),
        position_ids=torch.cat([torch.arange(n, n + m) for n, m in zip(done, new, strict=True)])[None].to(device),
        # A mask of four dimensions keeps transformers from making one; that it fits nothing stops a layer which does
        # not hand `beside` on to its attention: there all histories would see one another.
        attention_mask=torch.ones(1, 1, 1, 0, dtype=torch.bool, device=device),
        past_key_values=row,
        beside=row,
    )
    try:
        states, final = backbone.run(layer, shallow, **given)
    except RuntimeError:
        if row.layers_seen:
            raise
        return [backbone.prefix(e, layer, p, shallow) for e, p in zip(histories, before, strict=True)]
    parts = zip(histories, caches, before, torch.split(states, new), torch.split(final, new), strict=True)
    return [grown(encoded, cache, prefix, s, f) for encoded, cache, prefix, s, f in parts]
