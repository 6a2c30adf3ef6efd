"""Long dialogues train in little memory: what the feed-forward blocks keep for the gradient is computed again.

Owns from which length on that pays. Those blocks keep more than half of what a pass keeps, and computing them again
costs another forward pass of theirs; short passes, which fit anyway, go on as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pamdp.errors import ModelError
from pamdp.models.backbone import Backbone

TOKENS = 640
"""Passes with more tokens than that compute again; each takes 43 KB of memory in each layer of width 576 without it."""


@contextmanager
def checkpointed(backbone: Backbone, tokens: int) -> Iterator[None]:
    """Passes of TOKENS tokens inside the block, if that is many and a gradient is wanted, keep less.

    `model.checkpointing` may say that all of them do, or none.

    The gradient, too, has to be taken under the adapter that is active now. Trunks whose layers have no `mlp` keep all.
    """
    many = tokens > TOKENS if backbone.checkpointing == "auto" else backbone.checkpointing == "on"
    if not many or not torch.is_grad_enabled():
        yield
        return
    name = backbone.active

    @contextmanager
    def again() -> Iterator[None]:
        if backbone.active != name:
            raise ModelError(f"the pass ran under the adapter {name!r}, its gradient under {backbone.active!r}")
        yield

    found: list[nn.Module] = [
        mlp for layer in backbone.layers if isinstance(mlp := getattr(layer, "mlp", None), nn.Module)
    ]
    blocks = [block for block in found if "forward" not in vars(block)]
    for block in blocks:
        # An attribute of the module hides its method for as long as it is there.
        block.forward = partial(
            checkpoint, block.forward, use_reentrant=False, context_fn=lambda: (nullcontext(), again()),
            preserve_rng_state=False,
        )  # fmt: skip
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
