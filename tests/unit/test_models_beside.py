"""A pass over several histories is given up only where nothing was computed yet."""

from __future__ import annotations

import pytest
from transformers import DynamicCache

from pamdp.models.attention import SideBySide
from pamdp.models.beside import rows_of, run_beside
from tests.tools.tiny import make_tiny_backbone


@pytest.mark.parametrize("seen", [False, True])
def test_an_error_after_the_first_layer_stays_one(seen: bool) -> None:
    """Caches have grown by then, and it is not what a layer does that hands nothing on."""

    def run(given: dict[str, object]) -> None:
        row = given["beside"]
        assert isinstance(row, SideBySide) and row is given["past_key_values"]
        row.layers_seen.update([0] if seen else [])
        raise RuntimeError("out of memory")

    backbone, caches = make_tiny_backbone(), [DynamicCache(), DynamicCache()]
    if not seen:
        assert run_beside(backbone, caches, [1, 1], run) is None
        return
    with pytest.raises(RuntimeError, match="out of memory"):
        run_beside(backbone, caches, [1, 1], run)


def test_rows_by_hand() -> None:
    assert rows_of([4, 6, 1, 12, 3, 7], 10) == [[0, 1], [2], [3], [4, 5]]
    assert rows_of([4, 6], 1) == [[0], [1]] and rows_of([], 10) == []
