"""D of eq. 11: replies that continue prefixes, many at a time.

Owns batched decoding with one prefill per prefix, an injected embedding per reply, and rows that leave the batch when
they end. A row's tokens depend on that row alone: its own random numbers, its own prefix, whatever the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from pamdp.models.backbone import Backbone, Prefix


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
      max_tokens: longest reply (n_g of Table 4).
      temperature: 0 is greedy: with an injected action the reply is then a function of history and action, u = F(a).
      top_p: nucleus, when temperature > 0.
      repetition_penalty: divides positive (multiplies negative) logits of tokens that the reply already holds.
    """

    max_tokens: int = 48
    temperature: float = 0.0
    top_p: float = 0.95
    repetition_penalty: float = 1.1


@dataclass(frozen=True, slots=True)
class Row:
    """One reply to write: after `length` tokens of prefix number `prefix`, with `inject` [n, d] and a seed.

    `steer` [d] is added to the reply's hidden states.
    """

    prefix: int
    length: int
    inject: Tensor | None = None
    seed: int = 0
    steer: Tensor | None = None


@torch.no_grad()
def generate(
    backbone: Backbone,
    prefixes: Sequence[Prefix],
    rows: Sequence[Row],
    sampling: Sampling,
    batch: int = 64,
    progress: Callable[[int], None] | None = None,
    layer: int = -1,
) -> list[list[int]]:
    """Token ids of one reply for each row, without the end-of-turn token.

    Args:
      batch: most rows decoded at once.
      progress: called with the number of rows just finished.
      layer: hidden layer that rows with `steer` shift.
    """
    out: list[list[int]] = [[] for _ in rows]
    # Rows of like length share a chunk, so little of the cache is padding.
    order = sorted(range(len(rows)), key=lambda i: (rows[i].inject is None, rows[i].length))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        while chosen:
            same = [i for i in chosen if (rows[i].inject is None) == (rows[chosen[0]].inject is None)]
            for i, ids in zip(same, _decode(backbone, prefixes, [rows[i] for i in same], sampling, layer), strict=True):
                out[i] = ids
            if progress is not None:
                progress(len(same))
            chosen = [i for i in chosen if i not in same]
    return out


def _decode(
    backbone: Backbone, prefixes: Sequence[Prefix], rows: Sequence[Row], sampling: Sampling, layer: int
) -> list[list[int]]:
    device = backbone.device
    lengths = torch.tensor([row.length for row in rows], device=device)
    width = int(lengths.max())
    cache = _gather(prefixes, rows, width)
    seen = torch.arange(width, device=device) < lengths[:, None]
    uniform = _uniform(rows, sampling, device)
    if rows[0].inject is not None:
        step = torch.stack([row.inject for row in rows if row.inject is not None]).to(backbone.dtype)
    else:
        # The header's last token is run again to get its state: drop it from what is seen.
        step = torch.stack([backbone.embed_ids([prefixes[r.prefix].encoded.ids[r.length - 1]])[0] for r in rows])[
            :, None
        ]
        seen = torch.arange(width, device=device) < (lengths - 1)[:, None]
        lengths = lengths - 1
    alive = torch.arange(len(rows), device=device)
    steer = None if rows[0].steer is None else torch.stack([row.steer for row in rows if row.steer is not None])
    said = torch.full((len(rows), sampling.max_tokens), -1, dtype=torch.long, device=device)
    for k in range(sampling.max_tokens):
        n = step.shape[1]
        seen = torch.cat([seen, torch.ones(len(alive), n, dtype=torch.bool, device=device)], dim=1)
        mask = seen[:, None, None, :].expand(-1, 1, n, -1)
        if n > 1:
            mask = mask.clone()
            mask[..., -n:] &= torch.ones(n, n, dtype=torch.bool, device=device).tril()
        with backbone.steering(layer, None if steer is None else steer[alive][:, None]):
            states = backbone.trunk(
                inputs_embeds=step,
                position_ids=lengths[:, None] + torch.arange(n, device=device),
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
        lengths = lengths + n
        token = _pick(backbone.head(states).float(), said[alive, :k], uniform[alive, k], sampling)
        going = token != backbone.chat.end
        said[alive[going], k] = token[going]
        if not bool(going.all()):
            keep = going.nonzero()[:, 0]
            if not len(keep):
                break
            cache.batch_select_indices(keep)
            alive, seen, lengths, token = alive[keep], seen[keep], lengths[keep], token[keep]
        step = torch.as_tensor(backbone.embed(token))[:, None]
    return [[int(t) for t in row if t >= 0] for row in said.tolist()]


def _gather(prefixes: Sequence[Prefix], rows: Sequence[Row], width: int) -> DynamicCache:
    """One cache row per reply, cropped or padded on the right to WIDTH (padding is never seen)."""
    cache = DynamicCache()
    for layer in range(len(prefixes[0].cache.layers)):
        pair: list[Tensor] = []
        for name in ("keys", "values"):
            blocks = []
            for row in rows:
                block = getattr(prefixes[row.prefix].cache.layers[layer], name)[:, :, :width]
                blocks.append(torch.nn.functional.pad(block, (0, 0, 0, width - block.shape[2])))
            pair.append(torch.cat(blocks))
        cache.update(pair[0], pair[1], layer)
    return cache


def _uniform(rows: Sequence[Row], sampling: Sampling, device: torch.device) -> Tensor:
    """Uniform numbers [rows, max_tokens], each row from its own seed."""
    if sampling.temperature == 0:
        return torch.zeros(len(rows), sampling.max_tokens, device=device)
    draws = [torch.rand(sampling.max_tokens, generator=torch.Generator().manual_seed(row.seed)) for row in rows]
    return torch.stack(draws).to(device)


def _pick(logits: Tensor, said: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """One token per row, [rows]: greedy, or the inverse of the nucleus' distribution at UNIFORM."""
    if sampling.repetition_penalty != 1.0:
        old = logits.gather(1, said)
        new = torch.where(old > 0, old / sampling.repetition_penalty, old * sampling.repetition_penalty)
        logits = logits.scatter(1, said, new)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probs, order = (logits / sampling.temperature).softmax(-1).sort(dim=-1, descending=True)
    mass = probs.cumsum(-1)
    inside = (mass - probs) < sampling.top_p
    total = (probs * inside).sum(-1)
    place = torch.searchsorted(mass, (uniform * total)[:, None]).clamp_max(logits.shape[1] - 1)
    place = torch.minimum(place[:, 0], inside.sum(-1) - 1)
    return order.gather(1, place[:, None])[:, 0]
