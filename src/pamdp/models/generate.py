"""D of eq. 11: replies that continue prefixes, many at a time.

Owns batched decoding with one prefill per prefix, injected embeddings per reply, rows that leave the batch when they
end and rows that take their places (continuous batching; the memory is in kv_cache.py). A row's tokens depend on that
row alone: its own random numbers, its own prefix, whatever the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from pamdp.models.attention import placed
from pamdp.models.backbone import Backbone
from pamdp.models.kv_cache import SlotCache
from pamdp.models.prefix import Prefix


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
    waiting = deque(sorted(range(len(rows)), key=lambda i: -rows[i].length))
    writing = _Writing(backbone, prefixes, rows, sampling, min(batch, len(rows)), layer)
    while waiting or writing.owner:
        free = writing.places - len(writing.owner)
        # A pass over few rows costs nearly as much as one over many: let some places become free first.
        if waiting and free >= min(max(1, writing.places // 4), len(waiting)):
            writing.join([waiting.popleft() for _ in range(min(free, len(waiting)))])
        else:
            writing.go_on()
        ended = writing.leave()
        for i, ids in ended:
            out[i] = ids
        if ended and progress is not None:
            progress(len(ended))
    return out


class _Writing:
    """Replies under way, always in the first places: whoever leaves gives its place to the last one.

    What decides the next pass (`columns`, `spoken`) is counted here on the CPU, so that no pass waits for a GPU.
    """

    def __init__(
        self,
        backbone: Backbone,
        prefixes: Sequence[Prefix],
        rows: Sequence[DecodeRow],
        sampling: Sampling,
        places: int,
        layer: int,
    ) -> None:
        self.backbone, self.prefixes, self.rows, self.sampling = backbone, prefixes, rows, sampling
        self.places, self.layer = places, layer
        device = backbone.device
        longest = max(row.length + _embeddings(row) for row in rows) + sampling.max_tokens
        backbone.require_room(longest)
        self.cache = SlotCache(prefixes[rows[0].prefix].cache, places, longest)
        steered = any(row.steer is not None for row in rows)
        # A row's table of what it has said is filled up with its first token: a token said twice is penalised once.
        self.said = torch.zeros(places, sampling.max_tokens, dtype=torch.long, device=device)
        self.uniform = torch.zeros(places, sampling.max_tokens, device=device)
        self.token = torch.zeros(places, dtype=torch.long, device=device)
        self.at = torch.zeros(places, dtype=torch.long, device=device)
        self.count = torch.zeros(places, dtype=torch.long, device=device)
        self.steer = torch.zeros(places, backbone.d, dtype=backbone.dtype, device=device) if steered else None
        self.ends = torch.tensor(backbone.chat.ends, device=device)
        self.owner: list[int] = []
        self.columns: list[int] = []
        self.spoken: list[int] = []
        # To see who has ended waits for the device; on a GPU a few tokens too many cost less than that.
        self.passes = 1 if device.type == "cpu" else 8

    def join(self, chosen: Sequence[int]) -> None:
        """Take in rows and write their first tokens; those with as many action embeddings run together."""
        for n in sorted({_embeddings(self.rows[i]) for i in chosen}):
            self._join([i for i in chosen if _embeddings(self.rows[i]) == n])

    def _join(self, chosen: Sequence[int]) -> None:
        first = len(self.owner)
        rows = [self.rows[i] for i in chosen]
        parts, ids = [], []
        for place, row in enumerate(rows, start=first):
            prefix, length = self.prefixes[row.prefix], row.length
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
        last = first + len(rows)
        self.owner += chosen
        self.at[first:last] = torch.tensor(self.columns[first:last], device=self.at.device)
        self.count[first:last] = 0
        self.uniform[first:last] = _uniform(rows, self.sampling, self.uniform.device)
        self._pass(first, last, torch.stack(parts), torch.tensor(ids, device=self.at.device))
        self.said[first:last] = self.token[first:last, None]

    def go_on(self) -> None:
        """One more token for every row, or a few where that spares waiting; never more than a row may have."""
        for _ in range(min(self.passes, self.sampling.max_tokens - max(self.spoken))):
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
        uniform = self.uniform[first:last].gather(1, count)[:, 0]
        logits = self.backbone.head(states).float()
        token = _pick(logits, said[:, : max(self.spoken[first:last])], uniform, self.sampling)
        said.scatter_(1, count, token[:, None])
        self.token[first:last] = token
        self.count[first:last] += 1
        self.at[first:last] += n
        for place in range(first, last):
            self.columns[place] += n
            self.spoken[place] += 1

    def leave(self) -> list[tuple[int, list[int]]]:
        """Rows that have ended, with their replies; their places are free."""
        ends, now = self.backbone.chat.ends, len(self.owner)
        over = torch.isin(self.said[:now], self.ends).any(1) | (self.count[:now] >= self.sampling.max_tokens)
        places: list[int] = over.nonzero()[:, 0].tolist()
        if not places:
            return []
        out = []
        for place, ids in zip(places, self.said[places].tolist(), strict=True):
            said = takewhile(lambda token: token not in ends, ids[: self.spoken[place]])
            out.append((self.owner[place], list(said)))
        for place in reversed(places):
            self._vacate(place)
        return out

    def _vacate(self, place: int) -> None:
        last = len(self.owner) - 1
        if place != last:
            self.cache.fill(place, self.cache, self.columns[last], last)
            for table in (self.said, self.uniform, self.token, self.at, self.count, self.steer):
                if table is not None:
                    table[place] = table[last]
        for entries in (self.owner, self.columns, self.spoken):
            entries[place] = entries[last]
            entries.pop()


def _embeddings(row: DecodeRow) -> int:
    """How many action embeddings a row has."""
    return 0 if row.inject is None else len(row.inject)


def _uniform(rows: Sequence[DecodeRow], sampling: Sampling, device: torch.device) -> Tensor:
    """Uniform numbers [rows, max_tokens], each row from its own seed."""
    if sampling.temperature == 0:
        return torch.zeros(len(rows), sampling.max_tokens, device=device)
    draws = [torch.rand(sampling.max_tokens, generator=torch.Generator().manual_seed(row.seed)) for row in rows]
    return torch.stack(draws).to(device)


def _pick(logits: Tensor, said: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """One token per row, [rows]: greedy, or the inverse of the nucleus' distribution at UNIFORM."""
    if sampling.repetition_penalty != 1.0:
        old = logits.gather(1, said)
        new = torch.where(old > 0, old / sampling.repetition_penalty, old * sampling.repetition_penalty)
        logits = logits.scatter(1, said, new)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probs, order = (logits / sampling.temperature).softmax(-1).sort(dim=-1, descending=True)
    mass = probs.cumsum(-1)
    inside = (mass - probs) < sampling.top_p
    total = (probs * inside).sum(-1)
    place = torch.searchsorted(mass, (uniform * total)[:, None]).clamp_max(logits.shape[1] - 1)
    place = torch.minimum(place[:, 0], inside.sum(-1) - 1)
    return order.gather(1, place[:, None])[:, 0]
