"""Histories within the positions that a model has.

Owns which turns of a long history are left out, and the refusal where none may be. Knows nothing of settings.
"""

from __future__ import annotations

from pamdp.errors import ModelError
from pamdp.models.backbone import Backbone
from pamdp.types import History


def within_positions(backbone: Backbone, history: History, system: str, room: int, drop: bool) -> History:
    """HISTORY itself, where it and ROOM further tokens fit; else what is left of it without its first turns.

    Args:
      system: the instruction in front of it.
      drop: whether turns may be left out; only whole ones are.

    Raises:
      ModelError: it does not fit, and nothing may be left out, or the last message alone is too long.
    """
    left, limit = history, backbone.positions
    while limit is not None and (n := len(backbone.chat.history(left, system).ids)) + room > limit:
        if not drop or len(left) == 1:
            hint = "shorten the dialogues" if drop else "shorten the dialogues (rl.horizon), set model.overflow=drop"
            raise ModelError(
                f"{n} tokens of history and {room} of a reply do not fit into the {limit} positions of "
                f"{backbone.name or 'the model'}; {hint} or take another model"
            )
        left = left[2:]
    return left
