"""Several processes that do one job (`accelerate launch`, `torchrun`): which this is, and what they tell each other.

Owns the launcher's environment and the exchange of plain objects. Knows nothing of models. One process alone passes
through all of it unchanged. Everything that exchanges is called by all processes, in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from pamdp.errors import ConfigError, PamdpError, RunError

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = timedelta(hours=12)
"""How long a process waits for the slowest one; one that dies is noticed sooner, by the others and by the launcher."""


def rank() -> int:
    """Which process this is, from 0; only the first one writes files, logs and bars."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes there are, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """Which process of this machine this is: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def require_one(what: str) -> None:
    """A ConfigError where several processes were started for WHAT, which knows one only."""
    if (n := world_size()) > 1:
        raise ConfigError(
            f"{what} runs in one process, and {n} were started; start it without `accelerate launch` or `torchrun` "
            "(docs/distributed.md has what runs in several)"
        )


def gather(value: T) -> list[T]:
    """VALUE of every process, by rank."""
    if (n := world_size()) == 1:
        return [value]
    import torch.distributed as dist

    if not dist.is_initialized():
        # Else transformers would leave the weights of all processes but the first empty, for accelerate to fill.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        dist.init_process_group(timeout=PATIENCE)  # gloo between CPUs, and NCCL between GPUs where there are any
    out: list[T] = [value] * n
    dist.all_gather_object(out, value)
    return out


def leave() -> None:
    """The job is done: part in good order."""
    if world_size() > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def agreed() -> Iterator[None]:
    """What a user can mend of one process inside the block is raised by all; nobody leaves it before the others."""
    failed: PamdpError | None = None
    try:
        yield
    except PamdpError as error:
        failed = error
    for found in gather(failed):
        if found is not None:
            raise found


def require_same(what: str, value: object) -> None:
    """A RunError, by all, where VALUE is not the same in every process."""
    if len({repr(found) for found in gather(value)}) > 1:
        raise RunError(
            f"the processes that were started together do not have the same {what}; give all of them the same command, "
            "and data and runs on a disk that all of them see"
        )


def shared(items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]]) -> list[R]:
    """What WORK makes of all ITEMS, in their order: each process has done its part of them, and all have the whole."""
    n, own = world_size(), items[rank() :: world_size()]
    with agreed():
        made = work(own) if own else ()
    out: list[R | None] = [None] * len(items)
    for first, part in enumerate(gather(list(made))):
        out[first::n] = part
    return out  # type: ignore[return-value]  # every place is filled
