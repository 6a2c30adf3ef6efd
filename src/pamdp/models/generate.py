"""D of eq. 11: replies that continue prefixes, many at a time.

Owns batched decoding with one prefill per prefix, injected embeddings per reply, rows that leave the batch when they
end and rows that take their places (continuous batching; the step is in slots.py, its memory in kv_cache.py, and
launch.py says how it is run where). A row's tokens depend on that row alone: its own random numbers, its own prefix,
its own sampling, whatever the batch. `generate` knows all rows
before it begins; an engine (pamdp.engines) hands them to a `Writing` as they come, and takes them out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

import torch
from torch import Tensor

from pamdp.models.backbone import Backbone
from pamdp.models.draw import uniform
from pamdp.models.launch import launch_for
from pamdp.models.prefix import Prefix
from pamdp.models.slots import Slots, Ways


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
      max_tokens: longest reply (n_g of Table 4).
      temperature: 0 is greedy: with an injected action the reply is then a function of history and action, u = F(a).
      top_p: nucleus, when temperature > 0.
      repetition_penalty: divides positive (multiplies negative) logits of tokens that the reply already holds.
      trim: a reply that the budget breaks off goes back to its last whole sentence (`Policy.write`).
    """

    max_tokens: int = 48
    temperature: float = 0.0
    top_p: float = 0.95
    repetition_penalty: float = 1.1
    trim: bool = True


@dataclass(frozen=True, slots=True)
class DecodeRow:
    """One reply to write: after `length` tokens of prefix number `prefix`, with `inject` [n, d] and a seed.

    `steer` [d] is added to the reply's hidden states.
    """

    prefix: int
    length: int
    inject: Tensor | None = None
    seed: int = 0
    steer: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A row on its way into a batch: whose it is, the prefix that it continues, and how its tokens are drawn."""

    key: int
    prefix: Prefix
    row: DecodeRow
    sampling: Sampling


@torch.no_grad()
def generate(
    backbone: Backbone,
    prefixes: Sequence[Prefix],
    rows: Sequence[DecodeRow],
    sampling: Sampling,
    batch: int = 64,
    progress: Callable[[int], None] | None = None,
    layer: int = -1,
) -> list[list[int]]:
    """Token ids of one reply for each row, without the token that ended it (one of `chat.ends`).

    Args:
      batch: most rows decoded at once.
      progress: called with the number of rows just finished.
      layer: hidden layer that rows with `steer` shift.

    Peak memory is that of BATCH rows as long as the longest, whatever the number of rows.
    """
    out: list[list[int]] = [[] for _ in rows]
    if not rows or sampling.max_tokens < 1:
        return out
    # The longest first: the memory that they need holds all that join later.
    order = sorted(range(len(rows)), key=lambda i: -rows[i].length)
    waiting = deque(Entry(i, prefixes[rows[i].prefix], rows[i], sampling) for i in order)
    longest = max(row.length + _embeddings(row) for row in rows)
    writing = places_for(backbone, waiting[0].prefix, min(batch, len(rows)), longest, sampling.max_tokens, layer)
    while waiting or writing.owner:
        ended = writing.step(waiting)
        for i, ids in ended:
            out[i] = ids
        if ended and progress is not None:
            progress(len(ended))
    writing.keep()
    return out


def places_for(backbone: Backbone, like: Prefix, places: int, longest: int, tokens: int, layer: int = -1) -> Writing:
    """Places for replies, see `Writing`: those that were kept from earlier ones, where they do, or new ones."""
    kept, backbone.kept = backbone.kept, None
    if isinstance(kept, Writing) and kept.takes(places, longest, tokens, layer):
        kept.places = places
        return kept
    del kept  # its memory is free before other memory is taken
    return Writing(backbone, like, places, longest, tokens, layer)


@dataclass(frozen=True, slots=True)
class _Seat:
    """Who has a place.

    Attributes:
      born: the pass, counted by `Writing.clock`, before the one that wrote its first token.
      ahead: columns that a pass over it sees, less the passes before it.
    """

    entry: Entry
    born: int
    ahead: int

    @property
    def until(self) -> int:
        """The pass after which it has as many tokens as it may have."""
        return self.born + self.entry.sampling.max_tokens


class Writing:
    """Replies under way, always in the first places: whoever leaves gives its place to the last one.

    What decides the next pass is known here without asking the device, and without counting rows: passes are counted,
    and a row has as many tokens as there were passes since it joined. That a row has ended is seen afterwards; whatever
    it says meanwhile is cut off.

    Args:
      like: a prefix of BACKBONE, whose cache tells the shape of this one's.
      places: most rows at once.
      longest, tokens: most tokens before a reply, embeddings included, and in one.
      layer: hidden layer that rows with `steer` shift.
    """

    def __init__(
        self, backbone: Backbone, like: Prefix, places: int, longest: int, tokens: int, layer: int = -1
    ) -> None:
        self.backbone, self.places, self.layer = backbone, places, layer
        backbone.require_room(longest + tokens)
        self.launch = launch_for(backbone.device)
        self.room = self.launch.capacity(places, longest + tokens, tokens)
        most, width, tokens = self.room
        self.slots = Slots(backbone, like, most, width, tokens, layer)
        self.weights = _weights(backbone) if self.launch.fixed else ()
        self.passes = self.launch.passes
        self.owner: list[_Seat] = []
        self.clock = 0

    def takes(self, places: int, longest: int, tokens: int, layer: int) -> bool:
        """Whether it has room for such rows, and its backbone is still what recorded passes know."""
        needed = places, longest + tokens, tokens
        enough = all(room >= need for room, need in zip(self.room, needed, strict=True))
        return enough and layer == self.layer and self.weights == _weights(self.backbone)

    def keep(self) -> None:
        """Leave memory and recorded passes to replies that come later, where passes are worth recording."""
        if self.launch.fixed and not self.owner:
            self.backbone.kept = self

    def step(self, waiting: deque[Entry]) -> list[tuple[int, list[int]]]:
        """Let some of WAITING join, or all that are here go on; the rows that ended with it, see `leave`.

        Where passes are of fixed size those that join write their first token beside the others.
        """
        free = self.places - len(self.owner)
        # A pass over few rows costs nearly as much as one over many: let some places become free first.
        joins = bool(waiting) and free >= min(max(1, self.places // 4), len(waiting))
        if joins:
            self.join([waiting.popleft() for _ in range(min(free, len(waiting)))])
        if self.launch.fixed or not joins:
            self.go_on()
        return self.leave()

    def join(self, chosen: Sequence[Entry]) -> None:
        """Take in rows; those with as many action embeddings begin together."""
        for n in sorted({_embeddings(entry.row) for entry in chosen}):
            self._join([entry for entry in chosen if _embeddings(entry.row) == n], n)

    def _join(self, chosen: Sequence[Entry], n: int) -> None:
        first, last = len(self.owner), len(self.owner) + len(chosen)
        # Without an action the header's last token is run again to get its state.
        lengths = [entry.row.length - (n == 0) for entry in chosen]
        for place, (entry, length) in enumerate(zip(chosen, lengths, strict=True), start=first):
            self.slots.cache.fill(place, entry.prefix.cache, length)
        self.slots.begin(
            first,
            [0 if n else entry.prefix.encoded.ids[length] for entry, length in zip(chosen, lengths, strict=True)],
            lengths,
            [entry.sampling.max_tokens for entry in chosen],
            [(way.temperature, way.top_p, way.repetition_penalty) for way in (entry.sampling for entry in chosen)],
        )
        self.slots.shift(first, [entry.row.steer for entry in chosen])
        for place, entry in enumerate(chosen, start=first):
            if entry.sampling.temperature > 0:
                draws = uniform(entry.row.seed, entry.sampling.max_tokens)
                self.slots.uniform[place, : len(draws)] = draws.to(self.slots.uniform)
        inject = [entry.row.inject.to(self.backbone.dtype) for entry in chosen if entry.row.inject is not None]
        if n == 1:
            self.slots.give(first, inject)
        at_once = n > 1 or not self.launch.fixed
        born = self.clock - at_once
        self.owner += [_Seat(e, born, length + max(n, 1) - born) for e, length in zip(chosen, lengths, strict=True)]
        self._count()
        if at_once:
            ways, width = self._ways(first), max(lengths) + max(n, 1)
            several = (torch.stack(inject), self.slots.token.new_full((len(chosen), n), -1)) if n > 1 else ()
            self.slots.step(first, last, width, ways, *several)

    def go_on(self) -> None:
        """One more token for every row, or a few where that spares waiting."""
        rows, slots = len(self.owner), self.slots
        more = slots.inject is not None, slots.steer is not None, self.ways.drawn is not None, self.ways.penalised
        for _ in range(min(self.passes, self.until - self.clock)):
            # A row that has its last token counts on until the next look, beyond what there is room for.
            last, width = self.launch.shape(rows, min(self.ahead + self.clock, self.room[1]))
            self.launch((last, width, *more), partial(slots.step, 0, last, width, self.ways))
            self.clock += 1

    def _count(self) -> None:
        """What the next passes need to know of all rows."""
        self.ways = self._ways()
        self.until = max((seat.until for seat in self.owner), default=0)
        self.ahead = max((seat.ahead for seat in self.owner), default=0)

    def _ways(self, first: int = 0) -> Ways:
        """How the rows from FIRST on are drawn."""
        ways = [seat.entry.sampling for seat in self.owner[first:]]
        drawn = [i for i, way in enumerate(ways) if way.temperature > 0]
        whole = len(drawn) == len(ways) or self.launch.fixed
        return Ways((slice(None) if whole else drawn) if drawn else None, any(w.repetition_penalty != 1 for w in ways))

    def so_far(self) -> list[tuple[int, list[int]]]:
        """What every row has said up to now."""
        return self._said(range(len(self.owner)))

    def leave(self) -> list[tuple[int, list[int]]]:
        """Rows that have ended, with their replies; their places are free."""
        going: list[bool] = self.slots.going[: len(self.owner)].tolist()
        places = [place for place, goes in enumerate(going) if not goes]
        if not places:
            return []
        out = self._said(places)
        self._vacate(places)
        return out

    def drop(self, key: int) -> None:
        """Take a row out before it has ended, if it is here."""
        self._vacate([place for place, seat in enumerate(self.owner) if seat.entry.key == key])

    def _said(self, places: Sequence[int]) -> list[tuple[int, list[int]]]:
        """What rows have said, up to the token that ended them."""
        ends, out = self.backbone.chat.ends, []
        seats = [self.owner[place] for place in places]
        counts = [min(self.clock, seat.until) - seat.born for seat in seats]
        table = self.slots.said[list(places), : max(counts, default=0)].tolist()
        for seat, n, ids in zip(seats, counts, table, strict=True):
            said = takewhile(lambda token: token not in ends, ids[:n])
            out.append((seat.entry.key, list(said)))
        return out

    def _vacate(self, places: Sequence[int]) -> None:
        """Free some places; the last rows move there."""
        now, stay = len(self.owner), len(self.owner) - len(places)
        holes = [place for place in places if place < stay]
        movers = sorted({*range(stay, now)} - {*places})
        if holes:
            self.slots.move(holes, movers, self.ahead + self.clock)
            for hole, mover in zip(holes, movers, strict=True):
                self.owner[hole] = self.owner[mover]
        del self.owner[stay:]
        self._count()


def _weights(backbone: Backbone) -> tuple[object, ...]:
    """What a recorded pass knows of a model: which adapter it used, and where its weights are."""
    return backbone.active, *(weight.data_ptr() for weight in backbone.model.parameters())


def _embeddings(row: DecodeRow) -> int:
    """How many action embeddings a row has."""
    return 0 if row.inject is None else len(row.inject)
