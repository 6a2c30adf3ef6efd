"""A device that is none: tensors that say they are on a card, hold their numbers all the same, and refuse to be mixed.

With no GPU present it finds what a GPU would refuse, a tensor left on the CPU among others on the card, and it counts
how often the host waits for numbers. The card goes by torch's name for a device without memory ("meta"), because a
build for CPUs knows no other; inside `Card` whatever is made there is a `OnCard`, which holds numbers. Some
writes in place are not followed: steps that go on until a number says so (the end of a reply) stay out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from pamdp.models.backbone import Backbone

CARD = torch.device("meta")
CROSS = {f"aten::{name}" for name in ("copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_")}
"""Operations that CUDA runs over two devices: copies, and look-ups by an index that is on the CPU."""


class OnCard(torch.Tensor):
    """A tensor on the card; HELD has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnCard:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=CARD
        )
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"OnCard({self.held!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return run(func, args, kwargs or {})


class Card(TorchDispatchMode):
    """Inside it the card is there.

    Attributes:
      waits: how often numbers were copied from the card to the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __enter__(self) -> Card:
        self._tensors = _TensorsOnCard()
        self._tensors.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._tensors.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = run(func, args, kwargs or {})
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, OnCard)]
        if given and (func._schema.name == "aten::_local_scalar_dense" or _to_host(func, args, found)):
            self.waits += 1
        return found


def _to_host(func: Any, args: Sequence[Any], found: Any) -> bool:
    if func._schema.name == "aten::copy_":
        return not isinstance(args[0], OnCard)
    return func._schema.name == "aten::_to_copy" and not isinstance(found, OnCard)


class _TensorsOnCard(TorchFunctionMode):
    """`torch.tensor` on the card, where torch itself makes nothing of the numbers that it is given, and `tolist`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu") == CARD:
            return OnCard(func(*args, **{**kwargs, "device": "cpu"}))
        if func is Tensor.tolist and isinstance(args[0], OnCard):
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


def run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """One operation on what the tensors hold; a RuntimeError where they are on two devices."""
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    here = [isinstance(x, OnCard) for x in tensors]
    name, asked = func._schema.name, kwargs.get("device")
    left = [x for x, on in zip(tensors, here, strict=True) if not on and x.ndim]
    if any(here) and left and name not in CROSS:
        raise RuntimeError(f"tensors on two devices: {name} of {[tuple(x.shape) for x in tensors]}")
    if name.startswith("aten::index") and here and not here[0] and any(here):
        raise RuntimeError(f"a tensor on the CPU is looked up by an index on the card: {name}")
    to_card = any(here) if asked is None else torch.device(asked) == CARD
    if to_card and not any(here) and kwargs.get("generator") is not None:
        raise RuntimeError(f"{name} on the card with the CPU's generator")
    plain = {**kwargs, **({} if asked is None else {"device": torch.device("cpu")})}
    held, named = tree_map(lambda x: x.held if isinstance(x, OnCard) else x, (tuple(args), plain))
    if name == "aten::_to_copy" and asked is not None and (torch.device(asked) == CARD) != any(here):
        named["dtype"] = named.get("dtype") or held[0].dtype
        found = held[0].to(named["dtype"], copy=True)
        return OnCard(found) if to_card else found
    out = func(*held, **named)
    written = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if written and func._schema.returns and isinstance(out, Tensor):
        return kwargs[written[0].name] if written[0].name in kwargs else args[func._schema.arguments.index(written[0])]
    to_card = to_card and name != "aten::_local_scalar_dense"
    return tree_map(lambda x: OnCard(x) if isinstance(x, Tensor) and to_card else x, out)


def to_card(module: nn.Module) -> None:
    """Every weight of a module on the card, in place."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(OnCard(weight.data), requires_grad=weight.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = OnCard(buffer)


@contextmanager
def on_card(backbone: Backbone) -> Iterator[Card]:
    """BACKBONE on the card inside the block; fused optimizers, which ask for a device by name, run there."""
    with mock.patch("torch.optim.adam._device_dtype_check_for_fused"), Card() as card:
        to_card(backbone.model)
        yield card
