"""How the passes of a batch that decodes are launched: as they come, in few sizes, or recorded once and replayed.

Owns sizes, and CUDA graphs. Knows nothing of what a pass does: it changes tensors that stay where they are, and reads
nothing else that changes from one pass of a size to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch

from pamdp.progress import note

LOOK = 8
"""Passes between two looks at who has ended, where a look waits for the device."""


class Launch:
    """Passes as they come, each as large as it has to be: a CPU computes no row and no column for nothing.

    Attributes:
      fixed: whether passes come in few sizes, and rows that join wait for the next pass of all.
      passes: how many passes there are between two looks at who has ended.
    """

    fixed = False
    passes = 1

    def capacity(self, places: int, width: int, tokens: int) -> tuple[int, int, int]:
        """Places, columns and tokens of a reply to take memory for, where so many are needed."""
        return places, width, tokens

    def shape(self, rows: int, width: int) -> tuple[int, int]:
        """Rows and columns that a pass over so many runs."""
        return rows, width

    def __call__(self, size: Hashable, step: Callable[[], None]) -> None:
        """Run STEP, a pass of SIZE."""
        step()


class FixedLaunch(Launch):
    """Passes in few sizes, so that a device which prepares for a size does so rarely."""

    fixed = True
    passes = LOOK

    def capacity(self, places: int, width: int, tokens: int) -> tuple[int, int, int]:
        """Room for what comes next as well: histories grow from turn to turn."""
        return _rows(places), _up(width, 512), _up(tokens, 64)

    def shape(self, rows: int, width: int) -> tuple[int, int]:
        """Rows 8, 16, 32, 64, 96 and so on; columns by 128, beyond 1,024 by 512."""
        return _rows(rows), _up(width, 128 if width <= 1024 else 512)


class GraphLaunch(FixedLaunch):
    """Each size is run once as it comes, recorded as a CUDA graph when it comes again, and replayed from then on.

    A model whose pass waits for the device, or copies from the host, cannot be recorded: its passes then go on as they
    come, which is said once. Recorded passes hold the addresses of weights: see `Writing.takes`.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: torch.cuda.Stream | None = None
        self.graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}
        self.refused = False

    def __call__(self, size: Hashable, step: Callable[[], None]) -> None:
        """Run STEP, or replay what it did when it was recorded."""
        with torch.cuda.device(self.device):  # streams and graphs are else those of whatever device is current
            self._launch(size, step)

    def _launch(self, size: Hashable, step: Callable[[], None]) -> None:
        if not self.refused and size in self.graphs:
            graph = self.graphs[size] or self._record(size, step)
            if graph is not None:
                graph.replay()
                return
        if self.refused:
            step()
            return
        self.graphs[size] = None
        self.stream = self.stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch does not type it
        # Libraries take their memory in a first run; on a stream of its own, as recording does.
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            step()
        torch.cuda.current_stream().wait_stream(self.stream)

    def _record(self, size: Hashable, step: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        """A graph of STEP, which is not run; None where it cannot be recorded."""
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        # One pool for all: no two graphs run at a time, and what they leave behind lies outside of it.
        pool = next((known.pool() for known in self.graphs.values() if known is not None), None)
        try:
            with torch.cuda.graph(graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"):
                step()
        except RuntimeError as error:
            self.refused = True
            torch.cuda.set_stream(before)  # what failed may have left its own in use
            note(f"this model's decode step cannot be recorded as a CUDA graph, and is slower: {str(error)[:120]!r}")
            return None
        self.graphs[size] = graph
        return graph


def launch_for(device: torch.device) -> Launch:
    """What is fastest on a device."""
    if device.type == "cuda":
        return GraphLaunch(device)
    return Launch() if device.type == "cpu" else FixedLaunch()


def _rows(n: int) -> int:
    """N rounded up to 8, 16, 32 or a multiple of 32."""
    return next((size for size in (8, 16) if n <= size), _up(n, 32))


def _up(n: int, step: int) -> int:
    return -(-n // step) * step
