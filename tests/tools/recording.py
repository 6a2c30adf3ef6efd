"""A graph of a CPU's making: the operations of a decode step, recorded once and run again on the same memory.

What a CUDA graph does with kernels this does with PyTorch's operations: numbers of Python's are what they were when the
step was recorded, and every tensor lies where it lay. A step that depends on anything but its state shows here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pamdp.models.launch import FixedLaunch

ASKING = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "_unique2", "masked_select", "item"}
"""Operations whose result has to be known on the host."""


class Operations(TorchDispatchMode):
    """Notes every operation inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Sequence[Any], Mapping[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run it as it is."""
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    @property
    def names(self) -> list[str]:
        """What was called."""
        return [func.overloadpacket.__name__ for func, *_ in self.calls]

    def replay(self) -> None:
        """Run all of it again: what was written is written anew, to where it was."""
        with torch.no_grad():
            for func, args, kwargs, out in self.calls:
                if func.is_view:
                    continue
                again = func(*args, **kwargs)
                if not func._schema.is_mutable:
                    for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                        if isinstance(old, Tensor):
                            old.copy_(new)


class RecordedLaunch(FixedLaunch):
    """Each size is run once and replayed from then on, if it asks for nothing; `replays` counts how often."""

    replays = 0

    def __init__(self) -> None:
        self.graphs: dict[Hashable, Operations] = {}

    def __call__(self, size: Hashable, step: Callable[[], None]) -> None:
        """Run STEP, or what it was."""
        if size in self.graphs:
            self.graphs[size].replay()
            RecordedLaunch.replays += 1
            return
        with Operations() as recorded:
            step()
        if not ASKING & set(recorded.names):  # as a CUDA graph refuses what waits for the device
            self.graphs[size] = recorded


@contextmanager
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of all that brings something from tensors to the host inside the block, in order."""
    seen: list[str] = []
    with monkeypatch.context() as patch, Operations() as operations:
        for name in ("tolist", "cpu", "numpy"):
            plain = getattr(Tensor, name)
            patch.setattr(
                Tensor, name, lambda self, *a, _n=name, _p=plain, **k: (seen.append(_n), _p(self, *a, **k))[1]
            )
        yield seen
    seen += [name for name in operations.names if name in ASKING]
