"""Training the likelihood judge on preference pairs (Bradley-Terry), with what lies below its adapter computed once.

Owns that loop. Knows nothing of where pairs come from.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pamdp.judges.likelihood import ADAPTER, LikelihoodHead, LikelihoodScorer
from pamdp.models.adapters import add_adapter, train_backbone
from pamdp.models.backbone import Backbone
from pamdp.models.packed_contexts import PackedRow, pack
from pamdp.types import PreferencePair

Prepared = tuple[PackedRow, Tensor, list[Tensor]]


def prepare(
    scorer: LikelihoodScorer, pairs: Sequence[PreferencePair], progress: Callable[[int], None]
) -> list[Prepared]:
    """For each pair its row, its states below the adapter (half precision) and log p₀ of both replies."""
    out: list[Prepared] = []
    for pair in pairs:
        replies = (pair.preferred, pair.rejected)
        row = pack([scorer.group(pair.persona, pair.history, replies)], scorer.backbone.device)
        scorer.forget()  # what is trained on does not depend on the order of the pairs
        out.append((row, scorer.lower(row).half(), scorer.base(pair.history, replies)))
        progress(1)
    return out


def train_likelihood(
    backbone: Backbone,
    pairs: Sequence[PreferencePair],
    *,
    cut: int,
    rank: int = 8,
    epochs: int = 3,
    batch_size: int = 8,
    lr: float = 4e-4,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> LikelihoodScorer:
    """A scorer whose adapter and head prefer the preferred replies.

    Args:
      progress: called once per pair prepared and once per pair and epoch.
    """
    add_adapter(backbone, ADAPTER, rank, cut, seed)
    train_backbone(backbone, "lora", ADAPTER)
    scorer = LikelihoodScorer(backbone, LikelihoodHead(backbone.d), cut)
    items = prepare(scorer, pairs, progress)
    adapter = [p for p in backbone.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": adapter, "lr": lr}, {"params": scorer.head.parameters(), "lr": 2 * lr}], weight_decay=0.01
    )
    rng, step, total = random.Random(seed), 0, epochs * -(-len(items) // batch_size)
    for _ in range(epochs):
        order = rng.sample(range(len(items)), len(items))
        for start in range(0, len(order), batch_size):
            scale = min(1.0, (step + 1) / 10) * (1 - step / total)
            for group, base in zip(optimizer.param_groups, (lr, 2 * lr), strict=True):
                group["lr"] = base * scale
            optimizer.zero_grad()
            chosen = order[start : start + batch_size]
            for i in chosen:
                row, lower, base_scores = items[i]
                good, bad = scorer.scores(row, lower.float(), base_scores)
                loss = torch.nn.functional.softplus(bad - good) / len(chosen)
                torch.autograd.backward(loss)
                progress(1)
            torch.nn.utils.clip_grad_norm_([*adapter, *scorer.head.parameters()], 1.0)
            optimizer.step()
            step += 1
    train_backbone(backbone, "frozen")
    return scorer
