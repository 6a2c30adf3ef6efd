"""D of eq. 11: replies that continue prefixes, many at a time.

Owns batched decoding with one prefill per prefix, injected embeddings per reply, rows that leave the batch when they
end and rows that take their places (continuous batching; the memory is in kv_cache.py). A row's tokens depend on that
row alone: its own random numbers, its own prefix, its own sampling, whatever the batch. `generate` knows all rows
before it begins; an engine (pamdp.engines) hands them to a `Writing` as they come, and takes them out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

import torch
from torch import Tensor

from pamdp.models.attention import placed
from pamdp.models.backbone import Backbone
from pamdp.models.draw import pick, uniform
from pamdp.models.kv_cache import SlotCache
from pamdp.models.prefix import Prefix

T = TypeVar("T")


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
    writing = Writing(backbone, waiting[0].prefix, min(batch, len(rows)), longest, sampling.max_tokens, layer)
    while waiting or writing.owner:
        ended = writing.step(waiting)
        for i, ids in ended:
            out[i] = ids
        if ended and progress is not None:
            progress(len(ended))
    return out


class Writing:
    """Replies under way, always in the first places: whoever leaves gives its place to the last one.

    What decides the next pass (`columns`, `spoken`) is counted here on the CPU, so that no pass waits for a GPU.

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
        device = backbone.device
        backbone.require_room(longest + tokens)
        self.cache = SlotCache(like.cache, places, longest + tokens)
        # A row's table of what it has said is filled up with its first token: a token said twice is penalised once.
        self.said = torch.zeros(places, tokens, dtype=torch.long, device=device)
        self.uniform = torch.zeros(places, tokens, device=device)
        self.token = torch.zeros(places, dtype=torch.long, device=device)
        self.at = torch.zeros(places, dtype=torch.long, device=device)
        self.count = torch.zeros(places, dtype=torch.long, device=device)
        self.ends = torch.tensor(backbone.chat.ends, device=device)
        self.steer: Tensor | None = None
        self.owner: list[Entry] = []
        self.columns: list[int] = []
        self.spoken: list[int] = []
        # To see who has ended waits for the device; on a GPU a few tokens too many cost less than that.
        self.passes = 1 if device.type == "cpu" else 8

    def step(self, waiting: deque[Entry]) -> list[tuple[int, list[int]]]:
        """Let some of WAITING join, or all that are here go on; the rows that ended with it, see `leave`."""
        free = self.places - len(self.owner)
        # A pass over few rows costs nearly as much as one over many: let some places become free first.
        if waiting and free >= min(max(1, self.places // 4), len(waiting)):
            self.join([waiting.popleft() for _ in range(min(free, len(waiting)))])
        else:
            self.go_on()
        return self.leave()

    def join(self, chosen: Sequence[Entry]) -> None:
        """Take in rows and write their first tokens; those with as many action embeddings run together."""
        if self.steer is None and any(entry.row.steer is not None for entry in chosen):
            shape = self.places, self.backbone.d
            self.steer = torch.zeros(shape, dtype=self.backbone.dtype, device=self.backbone.device)
        for n in sorted({_embeddings(entry.row) for entry in chosen}):
            self._join([entry for entry in chosen if _embeddings(entry.row) == n])

    def _join(self, chosen: Sequence[Entry]) -> None:
        first = len(self.owner)
        parts, ids = [], []
        for place, entry in enumerate(chosen, start=first):
            prefix, row, length = entry.prefix, entry.row, entry.row.length
            if row.inject is None:
                # The header's last token is run again to get its state.
                length -= 1
                ids.append([prefix.encoded.ids[length]])
                parts.append(self.backbone.embed_ids(ids[-1]))
            else:
                ids.append([-1] * len(row.inject))
                parts.append(row.inject.to(self.backbone.dtype))
            self.cache.fill(place, prefix.cache, length)
            self.columns.append(length)
            self.spoken.append(0)
            if self.steer is not None:
                self.steer[place] = 0 if row.steer is None else row.steer.to(self.steer)
            if entry.sampling.temperature > 0:
                draws = uniform(row.seed, entry.sampling.max_tokens)
                self.uniform[place, : len(draws)] = draws.to(self.uniform)
        last = first + len(chosen)
        self.owner += chosen
        self.at[first:last] = torch.tensor(self.columns[first:last], device=self.at.device)
        self.count[first:last] = 0
        self._pass(first, last, torch.stack(parts), torch.tensor(ids, device=self.at.device))
        self.said[first:last] = self.token[first:last, None]

    def go_on(self) -> None:
        """One more token for every row, or a few where that spares waiting; never more than a row may have."""
        for _ in range(min(self.passes, *(entry.sampling.max_tokens - n for entry, n in self._spoken()))):
            last = len(self.owner)
            token = self.token[:last, None]
            self._pass(0, last, torch.as_tensor(self.backbone.embed(token)), token)

    def _pass(self, first: int, last: int, step: Tensor, ids: Tensor) -> None:
        """Run embeddings [rows, n, d] of tokens IDS in places FIRST to LAST and draw a token for each row."""
        n = step.shape[1]
        at = self.at[first:last, None] + torch.arange(n, device=step.device)
        width = max(self.columns[first:last]) + n
        self.cache.open(first, last, at, width)
        steer = None if self.steer is None else self.steer[first:last, None]
        with self.backbone.steering(self.layer, steer), placed(at, torch.arange(width, device=step.device)[None]):
            states = self.backbone.trunk(
                **self.backbone.inputs(step, ids), position_ids=at, past_key_values=self.cache, use_cache=True
            ).last_hidden_state[:, -1]
        count, said = self.count[first:last, None], self.said[first:last]
        at_random = self.uniform[first:last].gather(1, count)[:, 0]
        logits = self.backbone.head(states).float()
        token = self._draw(self.owner[first:last], logits, said[:, : max(self.spoken[first:last])], at_random)
        said.scatter_(1, count, token[:, None])
        self.token[first:last] = token
        self.count[first:last] += 1
        self.at[first:last] += n
        for place in range(first, last):
            self.columns[place] += n
            self.spoken[place] += 1

    def _draw(self, rows: Sequence[Entry], logits: Tensor, said: Tensor, at_random: Tensor) -> Tensor:
        """One token per row, [rows]; those that are drawn in the same way together."""
        ways: dict[tuple[float, ...], list[int]] = {}
        for i, entry in enumerate(rows):
            way = entry.sampling
            ways.setdefault((way.temperature, way.top_p, way.repetition_penalty), []).append(i)
        if len(ways) == 1:
            return pick(logits, said, at_random, rows[0].sampling)
        token = torch.empty_like(self.token[: len(rows)])
        for some in ways.values():
            token[some] = pick(logits[some], said[some], at_random[some], rows[some[0]].sampling)
        return token

    def _spoken(self) -> Iterator[tuple[Entry, int]]:
        """Each row and how many tokens of it are drawn."""
        return zip(self.owner, self.spoken, strict=True)

    def so_far(self) -> list[tuple[int, list[int]]]:
        """What every row has said up to now."""
        return self._said(range(len(self.owner)))

    def leave(self) -> list[tuple[int, list[int]]]:
        """Rows that have ended, with their replies; their places are free."""
        now = len(self.owner)
        full = torch.tensor([n >= entry.sampling.max_tokens for entry, n in self._spoken()], device=self.said.device)
        over = torch.isin(self.said[:now], self.ends).any(1) | full
        places: list[int] = over.nonzero()[:, 0].tolist()
        if not places:
            return []
        out = self._said(places)
        for place in reversed(places):
            self._vacate(place)
        return out

    def drop(self, key: int) -> None:
        """Take a row out before it has ended, if it is here."""
        for place in [place for place, entry in enumerate(self.owner) if entry.key == key]:
            self._vacate(place)

    def _said(self, places: Sequence[int]) -> list[tuple[int, list[int]]]:
        """What rows have said, up to the token that ended them."""
        ends, out = self.backbone.chat.ends, []
        for place, ids in zip(places, self.said[list(places), : max(self.spoken, default=0)].tolist(), strict=True):
            said = takewhile(lambda token: token not in ends, ids[: self.spoken[place]])
            out.append((self.owner[place].key, list(said)))
        return out

    def _vacate(self, place: int) -> None:
        last = len(self.owner) - 1
        if place != last:
            self.cache.fill(place, self.cache, self.columns[last], last)
            for table in (self.said, self.uniform, self.token, self.at, self.count, self.steer):
                if table is not None:
                    table[place] = table[last]
        _close_up(self.owner, place)
        _close_up(self.columns, place)
        _close_up(self.spoken, place)


def _close_up(entries: list[T], place: int) -> None:
    """Take out what is at PLACE; the last entry stands there now."""
    entries[place] = entries[-1]
    entries.pop()


def _embeddings(row: DecodeRow) -> int:
    """How many action embeddings a row has."""
    return 0 if row.inject is None else len(row.inject)
