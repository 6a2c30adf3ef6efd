"""Prefixes of conversations that may go on, so that a next turn runs only what is new.

Owns which are kept: the ones used last, up to a number of bytes. What one space has put in no other finds. Knows
nothing of who uses them.
"""

from __future__ import annotations

from collections import OrderedDict

from pamdp.models.chat import Encoded
from pamdp.models.prefix import Prefix

Space = tuple[str, ...]


class PrefixCache:
    """At most LIMIT bytes of prefixes; `hits` and `misses` count look-ups."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes, self.hits, self.misses = limit, 0, 0, 0
        self._kept: OrderedDict[tuple[Space, tuple[int, ...]], Prefix] = OrderedDict()

    def find(self, space: Space, encoded: Encoded) -> Prefix | None:
        """The longest prefix of ENCODED that SPACE has put in: of itself, or of an earlier turn."""
        for head in reversed(encoded.heads):
            if (found := self._kept.get(key := (space, encoded.ids[:head]))) is not None:
                self._kept.move_to_end(key)
                self.hits += 1
                return found
        self.misses += 1
        return None

    def keep(self, space: Space, prefix: Prefix, before: Prefix | None = None) -> None:
        """Put PREFIX in, in place of the one BEFORE that it continues."""
        if before is not None:
            self._drop((space, before.encoded.ids))
        self._drop(key := (space, prefix.encoded.ids))
        self._kept[key] = prefix
        self.bytes += size(prefix)
        while self.bytes > self.limit:
            self._drop(next(iter(self._kept)))

    def forget(self, user: str) -> None:
        """Drop all that belongs to spaces of USER, their first part."""
        for key in [key for key in self._kept if key[0][0] == user]:
            self._drop(key)

    def _drop(self, key: tuple[Space, tuple[int, ...]]) -> None:
        if (prefix := self._kept.pop(key, None)) is not None:
            self.bytes -= size(prefix)


def size(prefix: Prefix) -> int:
    """Bytes that a prefix keeps alive."""
    layers = [tensor for layer in prefix.cache.layers for tensor in (layer.keys, layer.values)]
    stored = (tensor.untyped_storage() for tensor in (*layers, prefix.states, prefix.final))
    return sum({storage.data_ptr(): storage.nbytes() for storage in stored}.values())
