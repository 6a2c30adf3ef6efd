"""What a contender measures of itself, alone in its process: time, peak memory, arithmetic, the machine's GEMM rate.

Owns the units: seconds, MB (2^20 bytes), floating-point operations. Knows nothing of who competes.
"""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

Facts = Mapping[str, object]
STATUS, REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A contender that has loaded what it needs.

    Attributes:
      model: whose linear layers' arithmetic is counted.
      work: what is timed; gives facts about what it did.
      units: how many equal pieces of work that is (turns, replies): times are compared for each piece.
    """

    model: nn.Module
    work: Callable[[], Facts]
    units: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one contender.

    Attributes:
      seconds, cpu: wall time of the work, and what all threads of the process had of processors meanwhile.
      units: pieces of work.
      loaded_mb, peak_mb: resident memory before the work, and the most during it beyond that.
      flop: operations of the linear layers, forward and backward.
      gemm, gemm_cpu: operations of a large matrix product per second in this process, just before, and per second of
        its processors.
      facts: what the work gave.
    """

    seconds: float
    cpu: float
    units: int
    loaded_mb: float
    peak_mb: float
    flop: float
    gemm: float
    gemm_cpu: float
    facts: Facts

    @property
    def share(self) -> float:
        """Share of the GEMM rate that the work reached end to end."""
        return self.flop / self.seconds / self.gemm

    @property
    def share_of_cpu(self) -> float:
        """The same of processor time: what is left of it where others have the machine."""
        return self.flop / self.cpu / self.gemm_cpu


def measure(prepare: Callable[[], Prepared]) -> Measured:
    """Prepare and run a contender once; only its work counts."""
    gemm, gemm_cpu = gemm_rate()
    prepared = prepare()
    counter = Arithmetic(prepared.model)
    loaded = reset_peak()
    start, cpu = time.perf_counter(), time.process_time()
    facts = prepared.work()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Measured(seconds, cpu, prepared.units, loaded, peak_mb() - loaded, counter.flop, gemm, gemm_cpu, facts)


class Arithmetic:
    """Counts the operations of a model's linear layers while they run; attention is left out.

    A product of [n, i] and [i, o] is 2·n·i·o operations, and as many again for each gradient it will have to give.
    """

    def __init__(self, model: nn.Module) -> None:
        self.flop = 0.0
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        rows = out.numel() // module.out_features
        wanted = 1
        if out.requires_grad:
            wanted += int(inputs[0].requires_grad) + int(module.weight.requires_grad)
        self.flop += 2.0 * wanted * rows * module.in_features * module.out_features


def gemm_rate(size: int = 1024, tries: int = 12) -> tuple[float, float]:
    """Best rates of a product of two fp32 matrices with the threads of this process, per second and CPU second."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    torch.mm(a, b)
    best = best_cpu = float("inf")
    for _ in range(tries):
        start, cpu = time.perf_counter(), time.process_time()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
        best_cpu = min(best_cpu, time.process_time() - cpu)
    return 2.0 * size**3 / best, 2.0 * size**3 / best_cpu


def reset_peak() -> float:
    """Resident memory now; where the system can, the peak starts from here."""
    if not STATUS.exists():
        return peak_mb()
    try:
        REFS.write_text("5", encoding="ascii")
    except OSError:
        return _status("VmHWM")
    return _status("VmRSS")


def peak_mb() -> float:
    """Most resident memory so far, or since `reset_peak`."""
    if STATUS.exists():
        return _status("VmHWM")
    # Bytes on macOS, kilobytes elsewhere.
    scale = 2**20 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def _status(field: str) -> float:
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) / 2**10


def machine() -> dict[str, object]:
    """What the figures depend on and nobody chose: processor, cores, widest vector instructions, versions, load."""
    import os

    import transformers

    found: dict[str, object] = {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "load": round(os.getloadavg()[0], 1),
    }
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        lines = dict(line.split(":", 1) for line in cpu.read_text(encoding="utf-8").splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in lines.items()}
        wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")
        found["cpu"] = fields.get("model name", "unknown")
        found["flags"] = [flag for flag in wanted if flag in fields.get("flags", fields.get("Features", "")).split()]
    return found
