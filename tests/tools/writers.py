"""What every `Writer` must keep, `generate` as well as what stands in its place."""

from __future__ import annotations

from collections.abc import Sequence

from pamdp.models.backbone import Backbone
from pamdp.models.generate import DecodeRow, Sampling
from pamdp.models.prefix import Prefix
from pamdp.models.writer import Writer


def check_writer(
    write: Writer, backbone: Backbone, prefixes: Sequence[Prefix], rows: Sequence[DecodeRow], layer: int
) -> None:
    """Replies hang on their own rows; none holds its end, or more tokens than were asked for; all are counted."""
    sampling, done = Sampling(12, 0.8, repetition_penalty=1.2), list[int]()
    found = write(backbone, prefixes, rows, sampling, progress=done.append, layer=layer)
    assert sum(done) == len(rows) == len(found)
    assert len({tuple(reply) for reply in found}) > 1
    assert all(len(reply) <= 12 and not set(reply) & set(backbone.chat.ends) for reply in found)
    assert write(backbone, prefixes, rows[::-1], sampling, 2, layer=layer) == found[::-1]
    assert write(backbone, prefixes, rows[1:2], sampling, layer=layer) == found[1:2]
    assert write(backbone, prefixes, [], sampling) == []
    assert write(backbone, prefixes, rows, Sampling(0)) == [[]] * len(rows)
