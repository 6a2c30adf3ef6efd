"""Long dialogues train in little memory: what the feed-forward blocks keep for the gradient is computed again.

Owns when that pays. Those blocks keep more than half of what a pass keeps, and computing them again costs another
forward pass of theirs; short passes, and those for which a GPU has room, go on as they are.
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
FLOATS = 19
"""Numbers that a layer keeps of a token for its gradient, in units of its width, about; checkpointed less than half."""
ROOM = 0.25
"""Share of a GPU's free memory that a pass may keep; a step has two passes, and gradients and optimizer come beside."""


@contextmanager
def checkpointed(backbone: Backbone, tokens: int) -> Iterator[None]:
    """Passes of TOKENS tokens inside the block, if that is many and a gradient is wanted, keep less.

    `model.checkpointing` may say that all of them do, or none.

    The gradient, too, has to be taken under the adapter that is active now. Trunks whose layers have no `mlp` keep all.
    """
    if not torch.is_grad_enabled() or not _saves(backbone, tokens):
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


def _saves(backbone: Backbone, tokens: int) -> bool:
    if backbone.checkpointing != "auto":
        return backbone.checkpointing == "on"
    kept = tokens * len(backbone.layers) * FLOATS * backbone.d * backbone.dtype.itemsize
    return tokens > TOKENS and kept > ROOM * free_bytes(backbone.device)


def free_bytes(device: torch.device) -> float:
    """Memory that a GPU has left, what torch keeps for later among it; 0 where nobody can say."""
    if device.type != "cuda":
        return 0.0
    free, _ = torch.cuda.mem_get_info(device)
    return float(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
