"""A try on a few tokens: whether a model says the same of a reply beside others as of the reply alone.

Owns which families need no try, because the tests compare them (tests/contract/test_model_families.py), and the try of
all others: a model that builds masks or positions in a way of its own is refused before any work is done.
"""

from __future__ import annotations

import torch

from pamdp.errors import ModelError
from pamdp.models.backbone import Backbone
from pamdp.models.chat import Encoded
from pamdp.models.packed_branches import Branch, branch_log_probs

CHECKED = frozenset({
    "apertus", "arcee", "cohere", "cohere2", "deepseek_v3", "exaone4", "gemma", "gemma2", "gemma3_text", "gemma4_text",
    "glm4", "gpt2", "gpt_neox", "gpt_oss", "granite", "llama", "mistral", "mixtral", "olmo2", "olmo3", "phi", "phi3",
    "qwen2", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2",
})  # fmt: skip
"""Model types that the tests compare with transformers, token by token."""
WITHIN = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of a log-probability by type; half types, whose own noise is near it, have HALF."""
HALF = 0.25


@torch.no_grad()
def require_alike(backbone: Backbone) -> None:
    """A ModelError where a model of a family that the tests do not know answers otherwise beside other replies."""
    family = backbone.model.config.get_text_config().model_type
    if family in CHECKED:
        return
    ids = torch.randint(8, backbone.embed.num_embeddings, (32,), generator=torch.Generator().manual_seed(0)).tolist()
    history, replies = ids[:20], (ids[20:25], ids[25:])
    try:
        prefix = backbone.prefix(Encoded(tuple(history), (len(history),), ()))
        lengths = (len(history), len(history) - 8)
        found = branch_log_probs(backbone, prefix, [Branch(n, u) for n, u in zip(lengths, replies, strict=True)])
        alone = [_alone(backbone, history[:n], reply) for n, reply in zip(lengths, replies, strict=True)]
        gap = float((torch.cat(found) - torch.cat(alone)).abs().max())
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"models of the family {family!r} cannot be used: a try on a few tokens ended with {error!r:.120}"
        ) from error
    if not gap <= WITHIN.get(backbone.dtype, HALF):
        raise ModelError(
            f"models of the family {family!r} cannot be used: in a try on a few tokens a reply beside another one was "
            f"not scored as alone (log-probabilities differ by {gap:.2g}); docs/models.md lists families that can be"
        )


def _alone(backbone: Backbone, history: list[int], reply: list[int]) -> torch.Tensor:
    """Log p of each token of one reply in a plain pass, [n]."""
    whole = torch.tensor([[*history, *reply]], device=backbone.device)
    table = backbone.model(input_ids=whole, use_cache=False).logits[0, len(history) - 1 : -1].float().log_softmax(-1)
    return torch.as_tensor(table.gather(1, whole[0, len(history) :, None])[:, 0])
