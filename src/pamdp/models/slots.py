"""One step of replies under way: what is run, drawn and noted for every place, in tensors that stay where they are.

Owns the state of places on the device. A step reads and writes that state and nothing else: it asks the device for
nothing, so that it can be recorded and replayed (launch.py). Who has which place, and for how long, is generate.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pamdp.models.attention import placed
from pamdp.models.backbone import Backbone
from pamdp.models.draw import draw, penalised
from pamdp.models.kv_cache import SlotCache
from pamdp.models.prefix import Prefix


@dataclass(frozen=True, slots=True)
class Ways:
    """How the rows of a step are drawn, as far as that changes what is run; the rest is in tensors.

    Attributes:
      drawn: rows that draw (others among them stay greedy); None where none does.
      penalised: whether any row is penalised for what it repeats.
    """

    drawn: slice | Sequence[int] | None
    penalised: bool


class Slots:
    """The state of PLACES replies of at most TOKENS each, which lie with their histories in WIDTH columns.

    Attributes:
      token: last token of a row, or the last of its history: what its next step runs.
      at: column in which that stands.
      count: tokens that were drawn.
      going: whether a row goes on; one that does not is run along and changes nothing that is looked at.
      said: them, [places, tokens + 1]; filled up with the first one: a token said twice is penalised once.
      uniform: a number for each draw, from the row's own seed.
      ways: temperature, top_p and repetition penalty.
      limit: most tokens.
      inject: action embeddings [places, 1, d] that take the token's place in the first step, where `injects`.
      steer: what is added to hidden states of LAYER, [places, d].
    """

    def __init__(self, backbone: Backbone, like: Prefix, places: int, width: int, tokens: int, layer: int = -1) -> None:
        self.backbone, self.layer = backbone, layer
        self.cache = SlotCache(like.cache, places, width)
        whole = torch.zeros(3, places, dtype=torch.long, device=backbone.device)
        self.token, self.at, self.count = whole
        self.limit = torch.zeros_like(self.count)
        self.said = self.count.new_zeros(places, tokens + 1)
        self.uniform = torch.zeros(places, tokens + 1, device=backbone.device)
        self.ways = torch.ones(places, 3, device=backbone.device)
        self.going = torch.zeros(places, dtype=torch.bool, device=backbone.device)
        self.injects = torch.zeros_like(self.going)
        self.ends = torch.tensor(backbone.chat.ends, device=backbone.device)
        self.inject: Tensor | None = None
        self.steer: Tensor | None = None

    def begin(
        self, first: int, token: Sequence[int], at: Sequence[int], limit: Sequence[int], ways: Sequence[Sequence[float]]
    ) -> None:
        """Rows in places from FIRST on that have said nothing yet; their keys and values are in the cache."""
        rows = slice(first, first + len(token))
        numbers = torch.tensor([token, at, limit], device=self.at.device)
        self.token[rows], self.at[rows], self.limit[rows] = numbers
        self.ways[rows] = torch.tensor(ways, device=self.ways.device)
        self.count[rows] = 0
        self.going[rows] = True
        self.injects[rows] = False

    def give(self, first: int, inject: Sequence[Tensor]) -> None:
        """Embeddings [1, d] that rows from FIRST on run first."""
        if self.inject is None:
            shape = len(self.at), 1, self.backbone.d
            self.inject = torch.zeros(shape, dtype=self.backbone.dtype, device=self.at.device)
        rows = slice(first, first + len(inject))
        self.inject[rows] = torch.stack(list(inject))
        self.injects[rows] = True

    def shift(self, first: int, steer: Sequence[Tensor | None]) -> None:
        """What is added to the hidden states of rows from FIRST on."""
        if self.steer is None:
            if all(one is None for one in steer):
                return
            self.steer = torch.zeros(len(self.at), self.backbone.d, dtype=self.backbone.dtype, device=self.at.device)
        nothing = torch.zeros_like(self.steer[0])
        self.steer[first : first + len(steer)] = torch.stack(
            [nothing if one is None else one.to(nothing) for one in steer]
        )

    def step(
        self, first: int, last: int, width: int, ways: Ways, embeds: Tensor | None = None, ids: Tensor | None = None
    ) -> None:
        """One more token for the rows in places FIRST to LAST, who see WIDTH columns.

        EMBEDS [rows, n, d] of tokens IDS [rows, n] are run in place of what each would run next.
        """
        rows = slice(first, last)
        at, count, going, said = self.at[rows], self.count[rows], self.going[rows], self.said[rows]
        if embeds is None or ids is None:
            embeds, ids = self._next(rows)
        n = embeds.shape[1]
        columns = at[:, None] + torch.arange(n, device=at.device)
        self.cache.open(first, last, columns, width)
        steer = None if self.steer is None else self.steer[rows, None]
        with self.backbone.steering(self.layer, steer), placed(columns, torch.arange(width, device=at.device)[None]):
            states = self.backbone.trunk(
                **self.backbone.inputs(embeds, ids), position_ids=columns, past_key_values=self.cache, use_cache=True
            ).last_hidden_state[:, -1]
        begins = count == 0
        token = self._draw(rows, self.backbone.head(states).float(), begins, ways)
        said.copy_(torch.where(begins[:, None], token[:, None], said))
        said.scatter_(1, count[:, None], token[:, None])
        self.token[rows] = token
        at += going * n
        count += going
        going &= (token[:, None] != self.ends).all(1) & (count < self.limit[rows])

    def _next(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Embeddings [rows, 1, d] that rows run next, and their tokens [rows, 1], -1 where one is no token's."""
        ids = self.token[rows, None]
        embeds = torch.as_tensor(self.backbone.embed(ids))
        if self.inject is None:
            return embeds, ids
        acts = (self.injects[rows] & (self.count[rows] == 0))[:, None]
        return torch.where(acts[..., None], self.inject[rows], embeds), ids.masked_fill(acts, -1)

    def _draw(self, rows: slice, logits: Tensor, begins: Tensor, ways: Ways) -> Tensor:
        """One token per row, [rows]."""
        temperature, top_p, penalty = self.ways[rows].unbind(1)
        if ways.penalised:
            # What stands in the table of a row that begins was said by another.
            logits = penalised(logits, self.said[rows], torch.where(begins, 1.0, penalty))
        if ways.drawn is None:
            return logits.argmax(-1)
        at_random = self.uniform[rows].gather(1, self.count[rows, None])[:, 0]
        if isinstance(ways.drawn, slice):
            return draw(logits, at_random, temperature, top_p)
        token, some = logits.argmax(-1), list(ways.drawn)
        token[some] = draw(logits[some], at_random[some], temperature[some], top_p[some])
        return token

    def move(self, to: Sequence[int], of: Sequence[int], width: int) -> None:
        """Rows in places OF go on in places TO; WIDTH columns of them are in use."""
        index = torch.tensor([list(to), list(of)], device=self.at.device)
        self.cache.move(index[0], index[1], width)
        tables = (self.token, self.at, self.count, self.going, self.said, self.uniform, self.ways, self.limit)
        for table in (*tables, self.injects, self.inject, self.steer):
            if table is not None:
                table[index[0]] = table[index[1]]
