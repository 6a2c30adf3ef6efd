"""Shared-prefix packing: all replies to all turns of a dialogue in one pass after one clean prefix.

Owns the block mask that keeps branches apart; several dialogues may stand beside one another. A branch is an optional
injected action embedding and a reply; it sees the first `length` tokens of the prefix and itself. Losses and gradients
equal the naive computation of one padded sequence a turn, at a fraction of the work (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pamdp.errors import ShapeError
from pamdp.models.attention import placed
from pamdp.models.backbone import Backbone
from pamdp.models.beside import run_beside, stands_beside
from pamdp.models.checkpointing import checkpointed
from pamdp.models.place import wide
from pamdp.models.prefix import Prefix, fork

ROWS = 128
"""Most states that the language model's head expands at once: more is hardly faster, and a vocabulary is wide."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A reply that continues a history.

    Attributes:
      length: how many prefix tokens the branch follows (heads[t]).
      ids: the reply's tokens, end of turn included.
      inject: action embeddings that stand between history and reply, [n, d], or None.
      hidden: token span of the prefix that this branch may not see (context dropout), or None.
      steer: added to the hidden states of the branch's tokens at the layer that is steered, [d], or None.
      tokens: the tokens that `inject` embeds, where it embeds tokens.
    """

    length: int
    ids: Sequence[int]
    inject: Tensor | None = None
    hidden: tuple[int, int] | None = None
    steer: Tensor | None = None
    tokens: Sequence[int] = ()


def branch_log_probs(backbone: Backbone, prefix: Prefix, branches: Sequence[Branch], layer: int = -1) -> list[Tensor]:
    """Log p(u^k | h, a, u^<k) of every token of every branch (eq. 11), each [len(ids)], with LAYER steered.

    A ShapeError where a branch is empty or follows more than the prefix has.
    """
    return packed_log_probs(backbone, [prefix], [branches], layer)[0]


def packed_log_probs(
    backbone: Backbone, prefixes: Sequence[Prefix], branches: Sequence[Sequence[Branch]], layer: int = -1
) -> list[list[Tensor]]:
    """The same for the branches of several prefixes, in one pass where the model can keep those apart (beside.py)."""
    for prefix, own in zip(prefixes, branches, strict=True):
        for index, branch in enumerate(own):
            if not branch.ids or not 0 < branch.length <= len(prefix.encoded.ids):
                raise ShapeError(f"branch {index}: {len(branch.ids)} tokens after {branch.length} of the prefix")
            backbone.require_room(branch.length + len(_injected(branch)) + len(branch.ids))
    every = [branch for own in branches for branch in own]
    # The last reply token predicts nothing. Looked up all at once: each look-up has a gradient as large as the table.
    ids = [branch.ids[:-1] for branch in every]
    known = backbone.embed_ids([token for part in ids for token in part])
    looked_up = iter(torch.split(known, list(map(len, ids))))
    # The token before a reply is the action or, without one, the header.
    rows = [
        _Row(
            prefix, own, [next(looked_up) if b.inject is None else torch.cat([b.inject, next(looked_up)]) for b in own]
        )
        for prefix, own in zip(prefixes, branches, strict=True)
    ]
    # Where no branch runs a token there is still something to put together.
    none = known.new_empty(0, backbone.d)
    states = torch.cat([none, *_states(backbone, [row for row in rows if sum(row.sizes)], layer)])
    after = iter(torch.split(states, [n for row in rows for n in row.sizes]))
    # n action embeddings: only the last one predicts the reply's first token.
    predict = [
        torch.cat([row.prefix.final[branch.length - 1][None], next(after)])
        if branch.inject is None
        else next(after)[len(branch.inject) - 1 :]
        for row in rows
        for branch in row.branches
    ]
    found = iter(reply_log_probs(backbone, predict, [branch.ids for branch in every]))
    return [list(islice(found, len(own))) for own in branches]


@dataclass(frozen=True, slots=True)
class _Row:
    """The branches of one prefix, and the embeddings of what each runs, [n_i, d]."""

    prefix: Prefix
    branches: Sequence[Branch]
    parts: Sequence[Tensor]

    @property
    def sizes(self) -> list[int]:
        """How many tokens each branch has in a pass."""
        return [len(part) for part in self.parts]


def _states(backbone: Backbone, rows: Sequence[_Row], layer: int) -> list[Tensor]:
    """States of all tokens of ROWS after the final norm, LAYER steered, [tokens, d] in one or more parts."""
    if len(rows) > 1 and stands_beside(backbone):
        at = torch.cat([_positions(row.branches, row.sizes, backbone.device) for row in rows])
        sees = [_mask(row.branches, row.sizes, len(row.prefix.encoded.ids), backbone.device) for row in rows]
        caches, new = [fork(row.prefix.cache) for row in rows], [sum(row.sizes) for row in rows]
        found = run_beside(backbone, caches, new, lambda given: _run(backbone, rows, at, layer, given), sees)
        if found is not None:
            return [found]
    alone = []
    for row in rows:
        with _placed(row.branches, row.sizes, row.prefix, backbone.device) as at:
            alone.append(_run(backbone, [row], at, layer, {"past_key_values": fork(row.prefix.cache)}))
    return alone


def _run(backbone: Backbone, rows: Sequence[_Row], at: Tensor, layer: int, given: Mapping[str, object]) -> Tensor:
    """One pass over all tokens of ROWS, which stand AT [tokens]; their states after the final norm, [tokens, d]."""
    branches = [branch for row in rows for branch in row.branches]
    parts = [part for row in rows for part in row.parts]
    ids = [token for branch in branches for token in (*_injected(branch), *branch.ids[:-1])]
    flat = torch.cat(parts)
    with backbone.steering(layer, _steers(branches, parts)), checkpointed(backbone, len(flat)):
        found = backbone.trunk(
            **backbone.inputs(flat[None], torch.tensor([ids], device=backbone.device)),
            position_ids=at[None],
            use_cache=True,
            **given,
        )
    return torch.as_tensor(found.last_hidden_state[0])


@torch.no_grad()
def reply_features(backbone: Backbone, prefix: Prefix, branches: Sequence[Branch], layer: int) -> list[Tensor]:
    """Mean hidden state of each reply, read in its context at LAYER, each [d]; the branches carry no action."""
    ids = [token for branch in branches for token in branch.ids]
    sizes = [len(branch.ids) for branch in branches]
    with _placed(branches, sizes, prefix, backbone.device) as positions:
        states, _ = backbone.run(
            layer,
            shallow=True,
            input_ids=torch.tensor([ids], device=backbone.device),
            position_ids=positions[None],
            past_key_values=fork(prefix.cache),
        )
    return [own.mean(0, dtype=wide(own.dtype)).float() for own in torch.split(states, sizes)]


def _injected(branch: Branch) -> Sequence[int]:
    """The tokens that a branch's embeddings stand for, -1 for an action's."""
    return branch.tokens or [-1] * (0 if branch.inject is None else len(branch.inject))


@contextmanager
def _placed(branches: Sequence[Branch], sizes: Sequence[int], prefix: Prefix, device: torch.device) -> Iterator[Tensor]:
    """A pass over branches of SIZES tokens inside the block; gives their positions, [tokens]."""
    at = _positions(branches, sizes, device)
    seen = torch.arange(len(prefix.encoded.ids), device=device)
    with placed(at[None], torch.cat([seen, at])[None], _mask(branches, sizes, len(seen), device)):
        yield at


def _positions(branches: Sequence[Branch], sizes: Sequence[int], device: torch.device) -> Tensor:
    starts = [(branch.length, n) for branch, n in zip(branches, sizes, strict=True)]
    return torch.cat([torch.arange(start, start + n, device=device) for start, n in starts])


def _steers(branches: Sequence[Branch], parts: Sequence[Tensor]) -> Tensor | None:
    """What is added to every branch token, [tokens, d], or None where nothing is."""
    if all(branch.steer is None for branch in branches):
        return None
    return torch.cat([
        torch.zeros_like(part) if branch.steer is None else branch.steer.expand(len(part), -1)
        for branch, part in zip(branches, parts, strict=True)
    ])  # fmt: skip


def reply_log_probs(backbone: Backbone, states: Sequence[Tensor], ids: Sequence[Sequence[int]]) -> list[Tensor]:
    """log-probability of token ids[i][k] at states[i][k], [n_i] for each reply i, of shape [n_i, d].

    The vocabulary is only ever expanded for these states, for all replies at once and at most ROWS of them at a time;
    for a gradient again, instead of being kept.
    """
    if not states:
        return []
    target = torch.tensor([token for reply in ids for token in reply], device=states[0].device)

    def score(rows: Tensor, wanted: Tensor) -> Tensor:
        logits = backbone.head(rows).float()
        return torch.as_tensor(logits.gather(-1, wanted[:, None])[:, 0] - logits.logsumexp(-1))

    found = [
        checkpoint(score, rows, wanted, use_reentrant=False, preserve_rng_state=False) if rows.requires_grad
        else score(rows, wanted)
        for rows, wanted in zip(torch.split(torch.cat(list(states)), ROWS), torch.split(target, ROWS), strict=True)
    ]  # fmt: skip
    return list(torch.split(torch.cat(found), [len(reply) for reply in ids]))


def _mask(branches: Sequence[Branch], sizes: Sequence[int], prefix: int, device: torch.device) -> Tensor:
    """Boolean [1, 1, n, prefix + n]: True where a branch token may look; branches have SIZES tokens."""
    own = torch.tensor([index for index, n in enumerate(sizes) for _ in range(n)], device=device)
    column = torch.arange(prefix, device=device)
    length = torch.tensor([branch.length for branch in branches], device=device)[own]
    hidden = torch.tensor([branch.hidden or (0, 0) for branch in branches], device=device)[own]
    sees = column < length[:, None]
    sees &= ~((column >= hidden[:, :1]) & (column < hidden[:, 1:]))
    n = len(own)
    causal = torch.ones(n, n, dtype=torch.bool, device=device).tril()
    return torch.cat([sees, causal & (own[:, None] == own)], dim=1)[None, None]
