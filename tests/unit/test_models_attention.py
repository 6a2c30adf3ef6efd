"""Grouped attention equals transformers' own: values and gradients, with any mask, in a layer and in a whole model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from pamdp.models import attention
from pamdp.models.attention import NAME, grouped_attention
from tests.tools.tiny import make_tiny_backbone

ROWS, GROUPS, SHARED, WIDTH, D = 3, 2, 3, 7, 4


def _layer() -> nn.Module:
    module = nn.Module()
    module.num_key_value_groups = SHARED
    module.is_causal = True
    return module


def _inputs(n: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(n)
    shapes = ((ROWS, GROUPS * SHARED, n, D), (ROWS, GROUPS, WIDTH, D), (ROWS, GROUPS, WIDTH, D))
    return [torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_() for shape in shapes]


def _mask(rows: int, n: int) -> Tensor:
    mask = torch.rand(rows, 1, n, WIDTH, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[..., 0] = True
    return mask


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("rows", [1, ROWS])
def test_values_and_gradients_equal_those_of_transformers(n: int, rows: int) -> None:
    found = []
    for attend in (grouped_attention, sdpa_attention_forward):
        inputs = _inputs(n)
        out, _ = attend(_layer(), *inputs, _mask(rows, n), scaling=0.7)
        torch.autograd.backward((out * torch.arange(out.numel(), dtype=torch.float64).view_as(out)).sum())
        found.append([out, *(x.grad for x in inputs)])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_a_whole_model_attends_so_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        attention, "nn", SimpleNamespace(functional=SimpleNamespace(scaled_dot_product_attention=lambda *a, **k: (
            calls.append(a[1].shape), real(*a, **k))[1]))
    )  # fmt: skip
    model = make_tiny_backbone(dtype=torch.float64).model
    assert model.config._attn_implementation == NAME
    ids = torch.arange(10)[None] + 5
    mask = torch.ones(10, 10, dtype=torch.bool).tril()[None, None]
    mask[..., 5:, 2] = False
    mine = model(ids, attention_mask=mask).logits
    assert len(calls) == 2 and {shape[1] for shape in calls} == {2}  # both layers, keys as they are stored
    plain = model(ids).logits
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(mine, model(ids, attention_mask=mask).logits, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(plain, model(ids).logits, rtol=1e-10, atol=1e-12)
