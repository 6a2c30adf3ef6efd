"""What memory cloning is said to take, by hand."""

from __future__ import annotations

import pytest
import torch

from pamdp.config import CloneConfig, Config, RLConfig
from pamdp.models.place import Place
from pamdp.train import memory
from pamdp.train.memory import memory_of
from tests.tools.families import FAMILIES, make_model


@pytest.mark.parametrize(
    ("family", "device", "batch", "dialogues"),
    [("llama", "cpu", 3, 1.0), ("llama", "cuda", 3, 3.0), ("llama", "cuda", 6, 4.096), ("mistral", "cuda", 3, 1.0)],
)
def test_a_step_keeps_what_shares_a_pass(
    family: str, device: str, batch: int, dialogues: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dialogue has 400 tokens and 6 replies of 100; each of 4 layers keeps 19 numbers for each of its 32 columns."""
    monkeypatch.setattr(memory, "empty_model", lambda _name: make_model(family, FAMILIES[family]))
    clone = CloneConfig(max_context=400, max_reply=100, batch_size=batch)
    rows = memory_of(
        Config(clone=clone, rl=RLConfig(horizon=6)), (), Place(torch.device(device), torch.bfloat16, "asked for")
    )
    assert [row.passes_gb for row in rows] == pytest.approx([0.45 * dialogues * 1000 * 4 * 19 * 32 * 2 / 1e9] * 3 + [0])
