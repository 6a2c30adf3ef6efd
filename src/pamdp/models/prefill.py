"""Clean passes over several histories at once: the products run over all their new tokens, attention over each alone.

Owns how many tokens run together. Each history comes out as `Backbone.prefix` gives it by itself: products with few
rows reach only part of a processor's rate, and a dialogue's turn brings few new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache

from pamdp.models.backbone import Backbone
from pamdp.models.beside import rows_of, run_beside, stands_beside
from pamdp.models.chat import Encoded
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
    if not stands_beside(backbone):
        return [[i] for i in range(len(histories))]
    done = [0 if prefix is None else len(prefix.encoded.ids) for prefix in before]
    return rows_of([len(one.ids) - n for one, n in zip(histories, done, strict=True)], together(backbone))


def _pass(
    backbone: Backbone, histories: Sequence[Encoded], layer: int, before: Sequence[Prefix | None], shallow: bool
) -> list[Prefix]:
    done = [continues(encoded, prefix) for encoded, prefix in zip(histories, before, strict=True)]
    caches = [DynamicCache() if prefix is None else fork(prefix.cache) for prefix in before]
    new = [len(encoded.ids) - n for encoded, n in zip(histories, done, strict=True)]
    device = backbone.device
    ids = torch.tensor([[i for e, n in zip(histories, done, strict=True) for i in e.ids[n:]]], device=device)
    at = torch.cat([torch.arange(n, n + m) for n, m in zip(done, new, strict=True)])[None].to(device)
    found = run_beside(
        backbone, caches, new, lambda given: backbone.run(layer, shallow, input_ids=ids, position_ids=at, **given)
    )
    if found is None:
        return [backbone.prefix(e, layer, p, shallow) for e, p in zip(histories, before, strict=True)]
    states, final = (torch.split(part, new) for part in found)
    parts = zip(histories, caches, before, states, final, strict=True)
    return [grown(encoded, cache, prefix, s, f) for encoded, cache, prefix, s, f in parts]
