"""A device that is none: tensors that say they are elsewhere, whose numbers lie in the CPU's memory.

Owns that device, under the name that PyTorch keeps for backends of others (`DEVICE`). Every operation on it runs on the
CPU, so results are the CPU's. A tensor of the CPU beside one of the device is refused where CUDA refuses it, and what
would have the CPU wait for numbers of a GPU is counted (`waits`). Knows nothing of models.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import backend_registration as backends

if torch.cuda.is_available():
    pytest.skip("a GPU is here, and PyTorch takes one kind of accelerator at a time", allow_module_level=True)
if not hasattr(backends, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this PyTorch takes no backend that is written in Python", allow_module_level=True)

DEVICE = torch.device("privateuseone", 0)

_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount",
          "repeat_interleave"}  # fmt: skip
"""What gives the CPU a number, or has a result whose size depends on numbers."""
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""What may be told places by tensors of the CPU."""

_waited: Counter[str] = Counter()
_memory: dict[int, tuple[StorageWeakRef, torch.UntypedStorage]] = {}
"""By the address of a storage of the device: whether it is still in use, and where its numbers are."""
_lock = threading.Lock()  # gradients of a device are computed in a thread of its own
_set = torch.ops.aten.set_.source_Storage_storage_offset
_cpu = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


@contextmanager
def waits() -> Iterator[Counter[str]]:
    """How often the CPU had to wait for the device inside the block, by operation; known at its end."""
    before, found = _waited.copy(), Counter[str]()
    yield found
    found.update(_waited - before)


def _here(x: object) -> bool:
    return isinstance(x, Tensor) and x.device.type == DEVICE.type


def _storage(numbers: torch.UntypedStorage) -> torch.UntypedStorage:
    """A storage of the device for NUMBERS."""
    storage: torch.UntypedStorage = torch._C._construct_storage_from_data_pointer(
        numbers.data_ptr(), DEVICE, numbers.nbytes()
    )
    with _lock:
        _memory[storage._cdata] = StorageWeakRef(storage), numbers
        if len(_memory) % 1000 == 0:
            for address in [address for address, (use, _) in _memory.items() if use.expired()]:
                del _memory[address]
    return storage


def _laid_out(storage: torch.UntypedStorage, like: Tensor, tensor: Tensor | None = None) -> Tensor:
    """A tensor of the device (a new one, or TENSOR changed) over a storage, with the type and the shape of LIKE."""
    new = torch._C._acc.create_empty_tensor((0,), like.dtype) if tensor is None else tensor
    # The CPU's kernel does: it touches nothing but what a tensor knows of itself.
    return _set.redispatch(_cpu, new, storage, like.storage_offset(), like.size(), like.stride())


def _numbers(tensor: Tensor) -> Tensor:
    """A tensor of the CPU over the numbers of one of the device."""
    own = torch.empty(0, dtype=tensor.dtype)
    storage = _memory[tensor.untyped_storage()._cdata][1]
    return own.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())


def _run(op: Any, *args: Any, **named: Any) -> Any:
    """Any operation with arguments or results of the device."""
    name = op._schema.name.removeprefix("aten::")
    if name == "set_":
        return op.redispatch(_cpu, *args, **named)
    if name == "_copy_from":  # what `to`, `cpu`, `copy_` and `tolist` come down to
        source, target = args[:2]
        _waited[name] += not _here(target)
        (_numbers(target) if _here(target) else target).copy_(_numbers(source) if _here(source) else source)
        return target
    pairs, strays = list[tuple[Tensor, Tensor]](), list[Tensor]()

    def lend(x: Any) -> Any:
        if isinstance(x, list | tuple):
            return [lend(each) for each in x]
        if _here(x):
            pairs.append((x, _numbers(x)))
            return pairs[-1][1]
        if isinstance(x, Tensor) and x.dim():
            strays.append(x)
        if isinstance(x, torch.Generator):
            raise RuntimeError(f"{name}: a generator of the CPU draws nothing on {DEVICE}")
        return torch.device("cpu") if isinstance(x, torch.device) else x

    lent, also = lend(args), {key: lend(x) for key, x in named.items()}
    if name in _INDEXED:
        strays = [x for x in strays if all(x is not place for place in args[1])]
    if strays and pairs:
        raise RuntimeError(f"{name}: {[tuple(x.shape) for x in strays]} on the CPU, beside tensors on {DEVICE}")
    by_mask = name == "_index_put_impl_" and any(x is not None and x.dtype == torch.bool for x in args[1])
    _waited[name] += name in _WAITS or by_mask
    # A number that stands for a tensor comes as the number that it is, which not every overload takes.
    wants = [str(argument.type) for argument in op._schema.arguments[: len(args)]]
    bare = any(kind == "Tensor" and not isinstance(x, Tensor) for kind, x in zip(wants, args, strict=True))
    with torch.no_grad():
        result = (op.overloadpacket if bare else op)(*lent, **also)
    for x, own in pairs:
        if x.shape != own.shape or x.stride() != own.stride():  # a result that was given, and had to grow
            storage, numbers = x.untyped_storage(), own.untyped_storage()
            _laid_out(storage if storage.nbytes() == numbers.nbytes() else _storage(numbers), own, x)

    def back(out: Any) -> Any:
        if isinstance(out, list | tuple):
            return type(out)(map(back, out))
        if not isinstance(out, Tensor):
            return out
        for x, own in pairs:
            if out is own:
                return x
        for x, own in pairs:
            if out.untyped_storage()._cdata == own.untyped_storage()._cdata:
                return _laid_out(x.untyped_storage(), out)
        return _laid_out(_storage(out.untyped_storage()), out)

    return back(result)


class _Backend(backends._DummyBackendModule):
    """What PyTorch asks of `torch.privateuseone`: nobody takes the device who was not told to."""

    def is_available(self) -> bool:
        return False

    def device_count(self) -> int:
        return 0

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_clone = torch.UntypedStorage.clone


def _cloned(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    """A copy of a storage wherever it is, as `deepcopy` wants it."""
    return _storage(_clone(_memory[storage._cdata][1])) if storage.device == DEVICE else _clone(storage)


torch.UntypedStorage.clone = _cloned
torch.utils.rename_privateuse1_backend(DEVICE.type)
backends._setup_privateuseone_for_python_backend(backend_module=_Backend())
_library = torch.library.Library("_", "IMPL")
_library.fallback(_run, "PrivateUse1")
