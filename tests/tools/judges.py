"""Random scorers on tiny backbones."""

from __future__ import annotations

import torch

from pamdp.judges.likelihood import ADAPTER, LikelihoodHead, LikelihoodScorer
from pamdp.judges.match import MatchHead, MatchScorer
from pamdp.models.adapters import add_adapter
from tests.tools.tiny import make_tiny_backbone


def make_match() -> MatchScorer:
    """A random match judge's scorer."""
    torch.manual_seed(1)
    backbone = make_tiny_backbone()
    return MatchScorer(backbone, MatchHead(4 * backbone.d, 2 * backbone.d, 8, 2), (1, 2))


def make_likelihood() -> LikelihoodScorer:
    """A random likelihood judge's scorer, whose adapter does something."""
    torch.manual_seed(2)
    backbone = make_tiny_backbone()
    add_adapter(backbone, ADAPTER, 2, 1)
    for name, weight in backbone.model.named_parameters():
        if "lora_B" in name:  # zero at first: the adapter would do nothing
            weight.data.normal_(std=0.3)
    head = LikelihoodHead(backbone.d)
    torch.nn.init.normal_(head.readout.weight)
    return LikelihoodScorer(backbone, head, 1)
