"""Batched replies with a carried cache are those of one whole new pass per token, and depend on their own row alone."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from pamdp.models import generate as generation
from pamdp.models.backbone import Backbone
from pamdp.models.generate import DecodeRow, Entry, Sampling, Writing, generate
from pamdp.models.kv_cache import SlotCache
from pamdp.models.launch import FixedLaunch, Launch
from pamdp.models.prefix import Prefix
from pamdp.models.slots import Slots
from pamdp.types import Message
from tests.tools import naive
from tests.tools.chats import CHATS, ECHO, LONE, NURSE, SYSTEM
from tests.tools.recording import RecordedLaunch

GREEDY = Sampling(max_tokens=12, temperature=0.0, repetition_penalty=1.0)
DRAWN = Sampling(max_tokens=12, temperature=1.0, top_p=0.9, repetition_penalty=1.3)


@pytest.fixture(autouse=True, params=[Launch, FixedLaunch, RecordedLaunch])
def launch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes as a CPU runs them, and of few sizes as a GPU does: what is written is the same."""
    monkeypatch.setattr(generation, "launch_for", lambda _device: request.param())


@pytest.fixture
def backbone(make_backbone: Callable[..., Backbone]) -> Backbone:
    """In float64, and so fond of the end token that rows end at different times."""
    backbone = make_backbone(dtype=torch.float64)
    backbone.model.lm_head.weight.data[backbone.chat.end] *= 2.5
    return backbone


def prefixes_of(backbone: Backbone, *chats: Sequence) -> list[Prefix]:
    with torch.no_grad():
        return [backbone.prefix(backbone.chat.history(chat, SYSTEM)) for chat in chats]


def all_rows(prefixes: list[Prefix], d: int, inject: str) -> list[DecodeRow]:
    """Two rows for every turn of every prefix; INJECT is "none", "all" or "some"."""
    generator = torch.Generator().manual_seed(5)
    rows: list[DecodeRow] = []
    for number, prefix in enumerate(prefixes):
        for head in prefix.encoded.heads:
            for _ in range(2):
                noise = torch.randn(1, d, generator=generator, dtype=torch.float64) * 2
                with_action = inject == "all" or (inject == "some" and len(rows) % 2 == 0)
                rows.append(DecodeRow(number, head, noise if with_action else None, seed=len(rows)))
    return rows


@pytest.mark.parametrize(("inject", "penalty"), [("none", 1.4), ("all", 1.0), ("some", 1.4)])
def test_greedy_replies_are_those_of_whole_passes(backbone: Backbone, inject: str, penalty: float) -> None:
    prefixes = prefixes_of(backbone, *CHATS)
    rows = all_rows(prefixes, backbone.d, inject)
    plain = [
        naive.decode(backbone, prefixes[row.prefix].encoded.ids[: row.length], row.inject, 12, penalty) for row in rows
    ]
    for batch in (1, 4, 64):
        assert generate(backbone, prefixes, rows, Sampling(12, 0.0, repetition_penalty=penalty), batch) == plain
    if inject != "none":
        assert len(set(map(len, plain))) > 2, "rows should leave the batch at different times"


def test_several_action_embeddings(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits, not only tokens: what the embeddings see of one another changes little."""
    prefixes = prefixes_of(backbone, NURSE, ECHO)
    noise = torch.randn(2, 3, backbone.d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = [DecodeRow(i, prefixes[i].encoded.heads[1], noise[i]) for i in range(2)]
    seen: list[torch.Tensor] = []
    draw = Slots._draw
    monkeypatch.setattr(
        Slots, "_draw", lambda self, a, logits, *rest: (seen.append(logits), draw(self, a, logits, *rest))[1]
    )
    for row in rows:
        seen.clear()
        [found] = generate(backbone, prefixes, [row], GREEDY)
        ids = prefixes[row.prefix].encoded.ids[: row.length]
        with torch.no_grad():
            plain = naive.forward(backbone, ids, row.inject, [])[-1]
        torch.testing.assert_close(seen[0][0].double(), plain, atol=1e-6, rtol=0)
        assert found == naive.decode(backbone, ids, row.inject, 12)


def test_the_action_changes_the_reply(backbone: Backbone) -> None:
    prefixes = prefixes_of(backbone, LONE)
    replies = generate(backbone, prefixes, all_rows(prefixes, backbone.d, "all"), GREEDY)
    assert len(set(map(tuple, replies))) > 1


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN])
def test_a_row_does_not_know_its_batch(backbone: Backbone, sampling: Sampling) -> None:
    prefixes = prefixes_of(backbone, *CHATS)
    rows = all_rows(prefixes, backbone.d, "some")
    together = generate(backbone, prefixes, rows, sampling)
    alone = [generate(backbone, prefixes, [row], sampling)[0] for row in rows]
    shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1)).tolist()
    mixed = generate(backbone, prefixes, [rows[i] for i in shuffled], sampling, batch=5)
    assert together == alone
    assert [together[i] for i in shuffled] == mixed


def test_seeds_and_nothing_else_make_draws_differ(backbone: Backbone) -> None:
    prefixes = prefixes_of(backbone, NURSE)
    length = prefixes[0].encoded.heads[-1]
    torch.manual_seed(0)
    first = generate(backbone, prefixes, [DecodeRow(0, length, seed=s) for s in range(8)], DRAWN)
    torch.manual_seed(1)
    again = generate(backbone, prefixes, [DecodeRow(0, length, seed=s) for s in range(8)], DRAWN)
    assert first == again
    assert len(set(map(tuple, first))) > 4


def test_draws_follow_the_nucleus_of_the_models_own_distribution(tiny_backbone: Backbone) -> None:
    prefixes = prefixes_of(tiny_backbone, LONE)
    ids, count = prefixes[0].encoded.ids, 3000
    sampling = Sampling(max_tokens=1, temperature=0.7, top_p=0.8)
    drawn = generate(
        tiny_backbone, prefixes, [DecodeRow(0, len(ids), seed=s) for s in range(count)], sampling, batch=1000
    )
    with torch.no_grad():
        probs = (naive.forward(tiny_backbone, ids, None, [])[-1] / 0.7).softmax(-1)
    ranked, order = probs.sort(descending=True)
    # The smallest set whose mass reaches top_p.
    size = int((ranked.cumsum(0) < 0.8).sum()) + 1
    expected = torch.zeros_like(probs).scatter(0, order[:size], ranked[:size] / ranked[:size].sum())
    seen = torch.zeros_like(probs)
    for reply in drawn:
        seen[reply[0] if reply else tiny_backbone.chat.end] += 1
    assert bool((seen[expected == 0] == 0).all())
    inside = expected > 0
    chi2 = float(((seen - count * expected)[inside].square() / (count * expected[inside])).sum())
    # Mean size - 1, variance 2·(size - 1): five standard deviations.
    assert chi2 < size - 1 + 5 * (2 * size) ** 0.5


def test_a_repeated_token_0_is_penalised_too(backbone: Backbone) -> None:
    """Token 0 is also what stands for "nothing said yet" in a padded table."""
    backbone.model.lm_head.weight.data[0] *= 3
    prefixes = prefixes_of(backbone, NURSE)
    length = prefixes[0].encoded.heads[0]
    noise = torch.randn(16, 1, backbone.d, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    rows = [DecodeRow(0, length, noise[i]) for i in range(16)]
    found = generate(backbone, prefixes, rows, Sampling(12, 0.0, repetition_penalty=2.0))
    assert any(0 in reply for reply in found)
    ids = prefixes[0].encoded.ids[:length]
    assert found == [naive.decode(backbone, ids, row.inject, 12, 2.0) for row in rows]


def test_prefixes_are_left_as_they_were_and_progress_adds_up(backbone: Backbone) -> None:
    prefixes = prefixes_of(backbone, *CHATS)
    before = [layer.keys.clone() for prefix in prefixes for layer in prefix.cache.layers]
    rows = all_rows(prefixes, backbone.d, "some")
    done: list[int] = []
    generate(backbone, prefixes, rows, GREEDY, batch=4, progress=done.append)
    assert sum(done) == len(rows) and max(done) <= 4
    after = [layer.keys for prefix in prefixes for layer in prefix.cache.layers]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("launch", [Launch], indirect=True)
def test_new_rows_take_the_places_of_those_that_left(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer passes than one batch after another needs, for the same tokens, and none for a row that has ended."""
    prefixes = prefixes_of(backbone, *CHATS)
    rows = all_rows(prefixes, backbone.d, "all")
    replies = generate(backbone, prefixes, rows, GREEDY)
    sizes: list[int] = []
    first: list[int] = []
    run, join = Slots.step, generation.Writing._join
    monkeypatch.setattr(Slots, "step", lambda self, a, b, *given: (sizes.append(b - a), run(self, a, b, *given))[1])
    monkeypatch.setattr(
        generation.Writing, "_join", lambda self, chosen, n: (first.append(len(chosen)), join(self, chosen, n))[1]
    )
    assert generate(backbone, prefixes, rows, GREEDY, batch=4) == replies
    # A reply of n tokens costs n draws and one for its end, if it may have one.
    order = sorted(range(len(rows)), key=lambda i: -rows[i].length)
    costs = [min(len(replies[i]) + 1, GREEDY.max_tokens) for i in order]
    assert max(sizes) == 4 and sum(sizes) == sum(costs) and sum(first) == len(rows)
    after_the_first = sum(max(costs[i : i + 4]) - 1 for i in range(0, len(costs), 4))
    assert len(sizes) - len(first) < after_the_first


@pytest.mark.parametrize("launch", [Launch], indirect=True)
def test_memory_is_taken_once_and_written_in_place(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    prefixes = prefixes_of(backbone, *CHATS)
    rows = all_rows(prefixes, backbone.d, "some")
    made: list[SlotCache] = []
    fresh = SlotCache.__init__

    def init(self: SlotCache, *given: object) -> None:
        fresh(self, *given)  # type: ignore[arg-type]
        made.append(self)

    where: set[int] = set()
    give = SlotCache.update

    def update(self: SlotCache, *given: object, **named: object) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = give(self, *given, **named)
        where.update((keys.untyped_storage().data_ptr(), values.untyped_storage().data_ptr()))
        return keys, values

    monkeypatch.setattr(SlotCache, "__init__", init)
    monkeypatch.setattr(SlotCache, "update", update)
    generate(backbone, prefixes, rows, GREEDY, batch=4)
    [cache] = made
    own = {t.untyped_storage().data_ptr() for layer in cache.layers for t in (layer.keys, layer.values)}
    assert where == own
    longest = max(row.length + (row.inject is not None) for row in rows)
    assert cache.layers[0].keys.shape[::2] == (4, longest + GREEDY.max_tokens)


def test_steered_and_plain_rows_share_a_batch(backbone: Backbone) -> None:
    prefixes = prefixes_of(backbone, NURSE, ECHO)
    shift = torch.randn(backbone.d, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * 3
    plain = all_rows(prefixes, backbone.d, "all")
    rows = [replace(row, steer=shift) if i % 2 else row for i, row in enumerate(plain)]
    together = generate(backbone, prefixes, rows, GREEDY, layer=1)
    assert together == [generate(backbone, prefixes, [row], GREEDY, layer=1)[0] for row in rows]
    assert together != generate(backbone, prefixes, plain, GREEDY, layer=1)


def test_a_gpu_that_looks_for_ends_rarely_writes_the_same(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    prefixes = prefixes_of(backbone, *CHATS)
    rows = all_rows(prefixes, backbone.d, "some")
    often = generate(backbone, prefixes, rows, DRAWN, batch=5)
    init = generation.Writing.__init__

    def rarely(self: generation.Writing, *given: object) -> None:
        init(self, *given)  # type: ignore[arg-type]
        self.passes = 8

    monkeypatch.setattr(generation.Writing, "__init__", rarely)
    assert generate(backbone, prefixes, rows, DRAWN, batch=5) == often


def test_no_token_allowed_no_reply(backbone: Backbone) -> None:
    prefixes = prefixes_of(backbone, LONE)
    assert generate(backbone, prefixes, [DecodeRow(0, prefixes[0].encoded.heads[0])], Sampling(0)) == [[]]


def test_no_rows_no_replies(backbone: Backbone) -> None:
    assert generate(backbone, [], [], GREEDY) == []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_end_token_of_the_model_ends_a_reply(make_backbone: Callable[..., Backbone], temperature: float) -> None:
    backbone = make_backbone(dtype=torch.float64)
    prefixes = prefixes_of(backbone, *CHATS)
    rows, sampling = all_rows(prefixes, backbone.d, "none"), Sampling(12, temperature, repetition_penalty=1.0)
    before = generate(backbone, prefixes, rows, sampling)
    other = next(ids[3] for ids in before if len(ids) > 5 and ids[3] not in ids[:3])
    backbone.model.generation_config.eos_token_id = [backbone.chat.end, other]
    again = Backbone(backbone.model, backbone.tokenizer)
    assert again.chat.ends == (backbone.chat.end, other) and again.chat.end == backbone.chat.end
    cut = [ids[: ids.index(other)] if other in ids else ids for ids in before]
    assert cut != before and generate(again, prefixes, rows, sampling) == cut


def test_a_row_that_ends_where_the_room_does(backbone: Backbone) -> None:
    """A history that leaves room for 13 tokens beside a longer reply: passes between two looks go beyond its end."""
    said = " ".join(["bread and salt and honey"] * 200)
    prefixes = prefixes_of(backbone, (Message("user", said),), LONE)
    assert len(prefixes[0].encoded.ids) > 499
    rows = [DecodeRow(0, 499), DecodeRow(1, len(prefixes[1].encoded.ids))]
    ways = [Sampling(13, 0.0, repetition_penalty=1.0), Sampling(40, 0.0, repetition_penalty=1.0)]
    backbone.chat.ends = [-1]  # nobody ends earlier
    with torch.no_grad():
        writing, found = Writing(backbone, prefixes[0], 8, 512 - 40, 40), dict[int, list[int]]()
        waiting = deque(Entry(i, prefixes[i], row, way) for i, (row, way) in enumerate(zip(rows, ways, strict=True)))
        while len(found) < 2:
            found |= dict(writing.step(waiting))
    expected = [generate(backbone, prefixes, [row], way)[0] for row, way in zip(rows, ways, strict=True)]
    assert [found[i] for i in range(2)] == expected and [len(ids) for ids in expected] == [13, 40]
