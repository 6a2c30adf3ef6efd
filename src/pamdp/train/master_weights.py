"""float32 twins of weights that are kept in a half type while they learn.

Owns the way of gradients to the twins and of their values back. A step of an optimizer is often smaller than the last
digit of a bfloat16 number, and would be lost there.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pamdp.models.place import wide


class MasterWeights:
    """What an optimizer moves in place of WEIGHTS: those of a half type as float32 twins, all others themselves.

    Attributes:
      learned: them, in the order of WEIGHTS.
    """

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        self.learned: list[nn.Parameter] = []
        self._pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        for weight in weights:
            twin = weight
            if wide(weight.dtype) != weight.dtype:
                twin = nn.Parameter(weight.detach().to(wide(weight.dtype)))
                self._pairs.append((weight, twin))
            self.learned.append(twin)

    def take_gradients(self) -> None:
        """Add what a backward pass found to the gradients of twins."""
        for weight, twin in self._pairs:
            if weight.grad is not None:
                twin.grad = weight.grad.to(twin) if twin.grad is None else twin.grad.add_(weight.grad)
                weight.grad = None

    @torch.no_grad()
    def give_values(self) -> None:
        """Round the twins' values into the weights."""
        for weight, twin in self._pairs:
            weight.copy_(twin)

    def state(self) -> list[Tensor]:
        """The twins, for a checkpoint; none where no weight has a half type."""
        return [twin.detach() for _, twin in self._pairs]

    @torch.no_grad()
    def load_state(self, twins: list[Tensor]) -> None:
        """Take up a checkpoint's twins."""
        for (_, twin), stored in zip(self._pairs, twins, strict=True):
            twin.copy_(stored)
