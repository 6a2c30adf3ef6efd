"""Whether we write what `generate` writes, token by token.

Owns what counts as the same. Knows nothing of speed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks import inputs
from benchmarks.gpu_work import Facts, Work, padded, plain
from pamdp.models.backbone import Backbone
from pamdp.models.generate import DecodeRow, generate
from pamdp.models.policy import Policy, path

TIE = 0.1
"""Two logits that lie so close may change places with the order of sums in bfloat16."""


@torch.no_grad()
def same_replies(work: Work) -> Facts:
    """Our replies to first messages beside those of `generate`, token by token."""
    some = work.histories()[: work.sizes.batch]
    prefixes = Policy(work.backbone).prefixes([path(d)[:1] for d in inputs.dialogues(work.sizes)[: len(some)]])
    rows = [DecodeRow(i, head) for i, (_, head) in enumerate(some)]
    mine = generate(work.backbone, prefixes, rows, work.sampling, work.sizes.batch)
    before = [encoded.ids[:head] for encoded, head in some]
    with plain(work.backbone):
        theirs = padded(work, before)
        return compared(work.backbone, before, mine, theirs)


def compared(
    backbone: Backbone, histories: Sequence[Sequence[int]], mine: Sequence[list[int]], theirs: Sequence[list[int]]
) -> Facts:
    """How many replies are equal, differ first where the two best logits lie within TIE, or differ elsewhere."""
    counts = {"equal": 0, "tie": 0, "unequal": 0}
    for history, a, b in zip(histories, mine, theirs, strict=True):
        if a == b:
            counts["equal"] += 1
            continue
        first = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        ids = torch.tensor([[*history, *a[:first]]], device=backbone.device)
        best = backbone.model(ids, use_cache=False).logits[0, -1].float().topk(2).values
        counts["tie" if float(best[0] - best[1]) <= TIE else "unequal"] += 1
    return dict(counts)
