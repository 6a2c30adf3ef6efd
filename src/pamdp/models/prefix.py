"""One clean pass over a history: its tokens, its states, and the keys and values that replies continue from.

Owns how states are read, and how caches grow side by side. Knows nothing of how models are run (backbone.py).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from pamdp.errors import ModelError
from pamdp.models.chat import Encoded
from pamdp.models.place import wide


@dataclass(frozen=True, slots=True)
class Prefix:
    """One clean pass over a history: what branches and read-outs need.

    Attributes:
      encoded: the history's tokens and marks.
      cache: keys and values of the pass.
      states: hidden states of the read-out layer, [tokens, d].
      final: hidden states after the final norm, [tokens, d].
    """

    encoded: Encoded
    cache: DynamicCache
    states: Tensor
    final: Tensor

    def read(self, t: int, places: Sequence[str]) -> Tensor:
        """H(h_t), [len(places) * d]."""
        start, stop = self.encoded.users[t]
        parts, dtype = list[Tensor](), wide(self.states.dtype)
        for place in places:
            if place == "header":
                parts.append(self.states[self.encoded.heads[t] - 1].to(dtype))
            elif place == "user":
                parts.append(self.states[start:stop].mean(0, dtype=dtype))
            else:
                seen = torch.cat([self.states[a:b] for a, b in self.encoded.users[: t + 1]])
                parts.append(seen.mean(0, dtype=dtype))
        return torch.cat(parts)


def continues(encoded: Encoded, before: Prefix | None) -> int:
    """How many tokens of a history an earlier prefix of it has run; a ModelError where that is not its beginning."""
    done = 0 if before is None else len(before.encoded.ids)
    if before is not None and encoded.ids[:done] != before.encoded.ids:
        raise ModelError("this history does not continue the one it is said to extend")
    return done


def grown(encoded: Encoded, cache: DynamicCache, before: Prefix | None, states: Tensor, final: Tensor) -> Prefix:
    """The prefix of a history, from the states of its new tokens."""
    if before is not None:
        states, final = torch.cat([before.states, states]), torch.cat([before.final, final])
    return Prefix(encoded, cache, states, final)


def fork(cache: DynamicCache) -> DynamicCache:
    """A cache that shares the tensors of CACHE but grows on its own: caches grow by concatenation."""
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin


def first_of(cache: DynamicCache, length: int) -> DynamicCache:
    """A copy of the first LENGTH tokens of CACHE."""
    twin = fork(cache)
    for layer in twin.layers:
        layer.keys, layer.values = layer.keys[:, :, :length].clone(), layer.values[:, :, :length].clone()
    return twin
