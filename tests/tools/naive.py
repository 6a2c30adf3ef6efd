"""Per-turn likelihoods and decoding the slow, plain way: one whole sequence at a time, no cache, no packing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pamdp.models.backbone import Backbone


def forward(
    backbone: Backbone,
    ids: Sequence[int],
    inject: Tensor | None,
    reply: Sequence[int],
    hidden: tuple[int, int] | None = None,
) -> Tensor:
    """Logits [n, vocabulary] of the plain model on history, action and reply; the reply does not see `hidden`."""
    parts = [backbone.embed_ids(ids)]
    if inject is not None:
        parts.append(inject.to(backbone.dtype))
    if len(reply):
        parts.append(backbone.embed_ids(reply))
    whole = torch.cat(parts)[None]
    n = whole.shape[1]
    mask = torch.ones(n, n, dtype=torch.bool).tril()
    if hidden is not None:
        mask[len(ids) :, hidden[0] : hidden[1]] = False
    return torch.as_tensor(
        backbone.model(inputs_embeds=whole, attention_mask=mask[None, None], use_cache=False).logits[0]
    )


def reply_log_probs(
    backbone: Backbone,
    ids: Sequence[int],
    inject: Tensor | None,
    reply: Sequence[int],
    hidden: tuple[int, int] | None = None,
) -> Tensor:
    """log p of each reply token, [len(reply)]."""
    logits = forward(backbone, ids, inject, reply, hidden)
    # The token before the reply's k-th token predicts it.
    table = logits[-len(reply) - 1 : -1].log_softmax(-1)
    return torch.stack([table[k, token] for k, token in enumerate(reply)])


@torch.no_grad()
def decode(
    backbone: Backbone, ids: Sequence[int], inject: Tensor | None, max_tokens: int, penalty: float = 1.0
) -> list[int]:
    """Greedy reply, every token from a whole new pass."""
    reply: list[int] = []
    while len(reply) < max_tokens:
        scores = forward(backbone, ids, inject, reply)[-1].clone()
        for token in set(reply):
            scores[token] = scores[token] / penalty if scores[token] > 0 else scores[token] * penalty
        token = int(scores.argmax())
        if token == backbone.chat.end:
            break
        reply.append(token)
    return reply
