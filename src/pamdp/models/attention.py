"""Attention of few queries over many keys, where several query heads share one pair of key and value heads.

Owns how a masked pass reads keys and values: each once. transformers copies them for every query head wherever a mask
meets more than one new token, which is the case in every pass over branches and in the first pass of every reply; on a
CPU those copies cost more than the attention. Knows nothing of caches and masks but their shapes.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "pamdp_grouped"
"""Name of this attention among those of transformers."""


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """As transformers' `sdpa`: the query heads of a group stand beside one another as further queries.

    Args:
      query: [rows, heads, n, d].
      key: [rows, groups, width, d], with heads a multiple of groups.
      value: the same.
      attention_mask: [rows or 1, 1, n, width], the same for all heads; without one, or with one for each head,
        transformers' own is called.

    Returns:
      [rows, n, heads, d], and no weights.
    """
    rows, heads, n, d = query.shape
    groups = key.shape[1]
    if attention_mask is None or attention_mask.shape[1] != 1 or heads == groups:
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
        return out, None
    shared = heads // groups
    mask = attention_mask[:, :, None].expand(-1, -1, shared, -1, -1).flatten(2, 3)
    out = nn.functional.scaled_dot_product_attention(
        query.reshape(rows, groups, shared * n, d), key, value, mask, dropout, scale=scaling
    )
    return out.reshape(rows, heads, n, value.shape[-1]).transpose(1, 2).contiguous(), None


def use_grouped_attention(model: PreTrainedModel) -> None:
    """Have MODEL attend so, if it is one that uses transformers' `sdpa`; on a GPU that is left as it is."""
    if getattr(model.config, "_attn_implementation", None) == "sdpa" and model.device.type == "cpu":
        model.set_attn_implementation(NAME)


AttentionInterface.register(NAME, grouped_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
