"""What this machine can do of where and how a model is to compute, and one clear line for what it cannot.

Owns the meaning of "auto". Knows nothing of models; nothing is loaded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from pamdp import ranks
from pamdp.errors import ModelError
from pamdp.place_config import PlaceConfig

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model computes, and in which type.

    Attributes:
      why: how these two came about, in words.
    """

    device: torch.device
    dtype: torch.dtype
    why: str


def place_of(asked: PlaceConfig) -> Place:
    """The device and type that settings come to here; a ModelError for what this machine does not have."""
    device = _device(asked.device)
    if asked.quantization == "4bit":
        _require_4bit(device)
    if asked.attn == "flex_attention":
        raise ModelError("attn=flex_attention: nobody has seen it run with replies that share a pass; set attn=sdpa")
    if asked.attn == "flash_attention_2":
        raise ModelError(
            "attn=flash_attention_2 takes no mask, and replies that share one pass over their dialogue are kept apart "
            "by masks; set attn=sdpa"
        )
    lacks = _lacks_bfloat16(device)
    if asked.dtype != "auto":
        if asked.dtype == "bfloat16" and lacks and device.type != "cpu":
            raise ModelError(f"dtype=bfloat16: {lacks}; set dtype=float32")
        slow = f"; {lacks}: slower than float32" if asked.dtype == "bfloat16" and lacks else ""
        return Place(device, getattr(torch, asked.dtype), f"{asked.dtype} on {device}, as asked for{slow}")
    if device.type == "cuda" and not lacks:
        return Place(device, torch.bfloat16, f"bfloat16 on {device}, which has it")
    if device.type == "cpu":
        # A processor's own units for bfloat16 would be faster, but results then differ from one machine to the next.
        units = ", ".join(cpu_bfloat16())
        hint = f"; it has {units}: dtype=bfloat16 may be faster" if units else ""
        return Place(device, torch.float32, f"float32 on the CPU, where results are the same everywhere{hint}")
    return Place(device, torch.float32, f"float32 on {device}{f'; {lacks}' if lacks else ''}")


def cpu_bfloat16() -> list[str]:
    """What this processor has for products of bfloat16: any of avx512_bf16 and amx_bf16."""
    try:
        flags = next(
            (line for line in CPUINFO.read_text(encoding="utf-8").splitlines() if line.startswith("flags")), ""
        )
    except OSError:
        return []
    return [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags.split()]


def on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one shape on the CPU, by one copy for all of them."""
    if not tensors or all(tensor.device.type == "cpu" for tensor in tensors):
        return list(tensors)
    return list(torch.stack(list(tensors)).cpu())


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type in which numbers of DTYPE are summed up: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def _device(name: str) -> torch.device:
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if found else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if device.index is not None and ranks.world_size() > 1:
            raise ModelError(f"device={name}: of several processes each has a GPU of its own; set device=cuda")
        if not found:
            build = "finds no GPU" if torch.version.cuda or torch.version.hip else "was built for CPUs only"
            raise ModelError(f"device={name}: this PyTorch {build}; set device=cpu, or install a build for your GPU")
        if (own := ranks.local_rank()) >= found:
            raise ModelError(
                f"process {own} of this machine has no GPU of its own: there are {found}; start no more processes"
            )
        if (device.index or 0) >= found:
            named = "cuda:0" if found == 1 else f"cuda:0 to cuda:{found - 1}"
            raise ModelError(f"device={name}: this machine has {found} GPU{'s' * (found > 1)}, {named}")
        return torch.device("cuda", own if device.index is None else device.index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device=mps: this PyTorch finds no Apple GPU; set device=cpu")
    return device


def _lacks_bfloat16(device: torch.device) -> str:
    """What stands against bfloat16 on a device, in words; empty: nothing."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            has = torch.cuda.is_bf16_supported(including_emulation=False)
        return "" if has else f"{torch.cuda.get_device_name(device)} has no bfloat16"
    if device.type == "mps":
        return "" if torch.backends.mps.is_macos_or_newer(14, 0) else "bfloat16 on this GPU needs macOS 14"
    return "" if cpu_bfloat16() else "this CPU has no units for bfloat16"


def _require_4bit(device: torch.device) -> None:
    if device.type != "cuda":
        raise ModelError(f"quantization=4bit runs on a GPU with CUDA, not on {device.type}; set quantization=none")
    if find_spec("bitsandbytes") is None:
        raise ModelError("quantization=4bit needs bitsandbytes; `pip install 'pamdp[quantization]'` brings it")
