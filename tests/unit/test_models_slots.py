"""A decode step asks the host for nothing, and the host asks it every few tokens; sizes are few."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from transformers import DynamicCache

from pamdp.models import generate as generation
from pamdp.models.backbone import Backbone
from pamdp.models.draw import draw, penalised, pick
from pamdp.models.generate import DecodeRow, Sampling, generate
from pamdp.models.kv_cache import SlotCache
from pamdp.models.launch import LOOK, FixedLaunch, GraphLaunch, Launch, launch_for
from pamdp.models.prefix import Prefix
from pamdp.models.slots import Slots
from tests.tools.chats import CHATS, SYSTEM
from tests.tools.families import make_family
from tests.tools.recording import Operations, RecordedLaunch, looks

TOKENS = 24
STATUS = Path("/proc/self/status")
SAMPLINGS = [Sampling(TOKENS, repetition_penalty=1.0), Sampling(TOKENS, 0.8, 0.9, 1.2)]


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "launch_for", lambda _device: FixedLaunch())


def _prefix(backbone: Backbone) -> Prefix:
    with torch.no_grad():
        return backbone.prefix(backbone.chat.history(CHATS[0], SYSTEM))


def _rows(backbone: Backbone, prefix: Prefix, n: int) -> list[DecodeRow]:
    """Rows with an action, a shift, both and neither."""
    noise = torch.randn(n, 2, backbone.d, generator=torch.Generator().manual_seed(0))
    return [
        DecodeRow(
            0, prefix.encoded.heads[i % 2], noise[i, :1] if i % 2 else None, i, noise[i, 1] if i % 4 > 1 else None
        )
        for i in range(n)
    ]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "drawn"])
def test_the_host_looks_every_few_tokens_whatever_the_rows_and_layers(
    fixed: None, make_backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    found = {}
    for backbone, n in ((make_backbone(), 3), (make_backbone(), 14), (make_family("llama"), 14)):
        backbone.chat.ends = (0,)  # nobody ends early
        backbone.model.get_output_embeddings().weight.data[0] = 0
        prefix = _prefix(backbone)
        with looks(monkeypatch) as seen:
            replies = generate(backbone, [prefix], _rows(backbone, prefix, n), sampling, layer=1)
        assert {len(reply) for reply in replies} == {TOKENS}
        found[len(backbone.layers), n] = seen
    # Who goes on, after every LOOK tokens, and at the end what was said.
    assert set(map(tuple, found.values())) == {("tolist",) * (TOKENS // LOOK + 1)}


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "drawn"])
def test_steps_of_one_size_are_the_same_operations(
    fixed: None, make_backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    """Same shapes, same numbers, and nothing that comes from the host or goes there."""
    backbone, steps = make_backbone(), list[list[object]]()
    prefix, plain = _prefix(backbone), Slots.step

    def step(self: Slots, *given: object) -> None:
        with Operations() as operations:
            plain(self, *given)  # type: ignore[arg-type]
        names = set(operations.names)
        assert not names & {"_local_scalar_dense", "nonzero", "lift_fresh", "_to_copy_from_host", "is_nonzero"}
        steps.append([given[:3], [_shapes(call) for call in operations.calls]])

    monkeypatch.setattr(Slots, "step", step)
    generate(backbone, [prefix], _rows(backbone, prefix, 6), sampling, layer=1)
    sizes = {size: [calls for same, calls in steps if same == size] for size, _ in steps}
    assert len(steps) >= 2 * LOOK and len(sizes) <= 2
    assert all(calls == same[0] for same in sizes.values() for calls in same)


def _shapes(call: tuple[object, ...]) -> object:
    return torch.utils._pytree.tree_map(
        lambda x: (tuple(x.shape), x.dtype) if isinstance(x, torch.Tensor) else str(x), list(call[:3])
    )


def test_what_was_recorded_serves_the_next_replies_too(
    make_backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless weights lie elsewhere, or another layer is shifted: then it is recorded anew."""
    launches: list[RecordedLaunch] = []
    monkeypatch.setattr(generation, "launch_for", lambda _device: (launches.append(RecordedLaunch()), launches[-1])[1])
    backbone = make_backbone()
    prefix = _prefix(backbone)
    rows = _rows(backbone, prefix, 6)
    first = generate(backbone, [prefix], rows, SAMPLINGS[1], layer=1)
    before = RecordedLaunch.replays
    assert generate(backbone, [prefix], rows, SAMPLINGS[1], batch=2, layer=1) == first
    assert len(launches) == 1 and RecordedLaunch.replays > before
    backbone.model.lm_head.weight.data = backbone.model.lm_head.weight.data.roll(1, 0)
    changed = generate(backbone, [prefix], rows, SAMPLINGS[1], layer=1)
    assert len(launches) == 2 and changed != first
    generate(backbone, [prefix], rows, SAMPLINGS[0], layer=2)
    assert len(launches) == 3, "another layer is shifted"


@pytest.mark.parametrize("refuses", [False, True])
def test_a_size_is_recorded_when_it_comes_again_and_every_pass_counts_once(
    monkeypatch: pytest.MonkeyPatch, refuses: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The order of things with CUDA, of which only names are here: what is recorded is not run."""
    ran: list[str] = []
    recording: list[Graph] = []

    class Graph:
        pool = staticmethod(lambda: (0, 1))

        def __init__(self) -> None:
            self.work: str | None = None

        def replay(self) -> None:
            assert self.work is not None
            ran.append(f"replayed {self.work}")

    @contextmanager
    def graph(made: Graph, **_: object) -> Iterator[None]:
        recording.append(made)
        yield
        recording.pop()
        if refuses:
            raise RuntimeError("operation not permitted when stream is capturing")

    def step(size: str) -> None:
        if recording:
            recording[-1].work = size
        else:
            ran.append(size)

    cuda = {
        "CUDAGraph": Graph,
        "graph": graph,
        "Stream": MagicMock(),
        "stream": MagicMock(),
        "current_stream": MagicMock(),
        "set_stream": MagicMock(),
        "device": MagicMock(),
    }
    for name, stand_in in cuda.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    launch = GraphLaunch(torch.device("cuda:1"))
    for size in ("a", "a", "b", "a", "b"):
        launch(size, partial(step, size))
    expected = ["a", "a", "b", "a", "b"] if refuses else ["a", "replayed a", "b", "replayed a", "replayed b"]
    assert ran == expected
    assert capsys.readouterr().err.count("cannot be recorded") == refuses
    # Whatever device is the current one, all of it happens on the model's; a stream that failed is left again.
    assert {call.args for call in cuda["device"].call_args_list} == {(torch.device("cuda:1"),)}
    assert cuda["set_stream"].called == refuses


@pytest.mark.parametrize("sampling", [*SAMPLINGS, Sampling(1, 0.0, repetition_penalty=3.0)], ids=str)
def test_a_token_picked_alone_is_the_one_of_a_mixed_batch(sampling: Sampling) -> None:
    generator = torch.Generator().manual_seed(1)
    logits, at_random = torch.randn(6, 50, generator=generator), torch.rand(6, generator=generator)
    said = torch.randint(50, (6, 4), generator=generator)
    told = [(way.temperature, way.top_p, way.repetition_penalty) for way in (sampling, SAMPLINGS[1])] * 3
    temperature, top_p, penalty = torch.tensor(told).unbind(1)
    mixed = draw(penalised(logits, said, penalty), at_random, temperature, top_p)
    assert torch.equal(pick(logits, said, at_random, sampling)[::2], mixed[::2])


def test_sizes_are_few_and_large_enough() -> None:
    launch, exact = FixedLaunch(), Launch()
    shapes = {launch.shape(rows, width) for rows in range(1, 129) for width in range(1, 1025)}
    assert len({rows for rows, _ in shapes}) == 6 and len({width for _, width in shapes}) == 8
    for rows, width, tokens in ((1, 1, 1), (9, 513, 65), (128, 1030, 512)):
        most = launch.capacity(rows, width, tokens)
        assert all(a >= b for a, b in zip(most, (rows, width, tokens), strict=True))
        assert all(a <= b for a, b in zip(launch.shape(rows, width), most, strict=False))
        assert exact.capacity(rows, width, tokens) == (rows, width, tokens) == (*exact.shape(rows, width), tokens)


def test_each_device_has_its_launch() -> None:
    kinds = {name: type(launch_for(torch.device(name))) for name in ("cpu", "cuda:1", "mps")}
    assert kinds == {"cpu": Launch, "cuda:1": GraphLaunch, "mps": FixedLaunch}


@pytest.mark.skipif(not STATUS.is_file(), reason="only Linux says how much memory is in use")
def test_a_cpu_takes_memory_for_the_tokens_that_are_there() -> None:
    """Half a gigabyte of room for a token each of 64 replies; huge pages would take all of it."""
    one = DynamicCache()
    one.update(torch.ones(1, 2, 1, 64), torch.ones(1, 2, 1, 64), 0)

    def resident() -> int:
        return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))

    before = resident()
    cache = SlotCache(one, 64, 8192)
    for place in range(64):
        cache.fill(place, one, 1)
    assert resident() - before < 64 * 1024  # kB
    assert cache.layers[0].keys[63, 1, 0].tolist() == [1.0] * 64 and not cache.layers[0].values[63, 1, 1].any()
