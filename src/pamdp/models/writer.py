"""What writes replies: `generate`, or what stands in its place (`Backbone.writer`).

Owns what the two share. Knows nothing of how either does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pamdp.models.backbone import Backbone
    from pamdp.models.generate import DecodeRow, Sampling
    from pamdp.models.prefix import Prefix


class Writer(Protocol):
    """Writes replies; each depends on its row, the sampling and the adapter in use, and on nothing beside it."""

    def __call__(
        self,
        backbone: Backbone,
        prefixes: Sequence[Prefix],
        rows: Sequence[DecodeRow],
        sampling: Sampling,
        batch: int = 64,
        progress: Callable[[int], None] | None = None,
        layer: int = -1,
    ) -> list[list[int]]:
        """Token ids of one reply for each row, without the token that ended it; see `generate`."""
        ...
