"""Tiny random models of many families, made in memory from their configs: 4 layers, width 32, windows of 16 tokens."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pamdp.models.backbone import Backbone
from tests.tools.tiny import make_tiny_tokenizer

WINDOW = 16
VOCABULARY = 320
SPECIAL = dict(pad_token_id=0, bos_token_id=None, eos_token_id=2)
COMMON = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=8192, initializer_range=0.3, **SPECIAL,
)  # fmt: skip
SLIDING = dict(COMMON, sliding_window=WINDOW)
ALTERNATING = dict(SLIDING, head_dim=16, layer_types=["sliding_attention", "full_attention"] * 2)
EXPERTS = dict(num_experts=4, num_local_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)

FAMILIES: dict[str, dict[str, object]] = {
    "apertus": COMMON,
    "arcee": COMMON,
    "cohere": COMMON,
    "cohere2": ALTERNATING,
    "deepseek_v3": dict(
        COMMON, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, n_group=2, topk_group=1,
        moe_intermediate_size=32, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8,
        v_head_dim=16, first_k_dense_replace=1,
    ),
    "exaone4": ALTERNATING,
    "gemma": COMMON,
    "gemma2": dict(ALTERNATING, attn_logit_softcapping=2.0, final_logit_softcapping=4.0),
    "gemma3_text": ALTERNATING,
    "gemma4_text": dict(
        ALTERNATING, global_head_dim=8, hidden_size_per_layer_input=8, vocab_size_per_layer_input=VOCABULARY
    ),
    "glm4": COMMON,
    "gpt2": dict(vocab_size=VOCABULARY, n_embd=32, n_layer=4, n_head=4, n_positions=2048, initializer_range=0.3,
                 **SPECIAL),
    "gpt_neox": {key: value for key, value in COMMON.items() if key != "num_key_value_heads"},
    "gpt_oss": dict(ALTERNATING, **EXPERTS),
    "granite": dict(COMMON, logits_scaling=3.0, embedding_multiplier=2.0),
    "llama": COMMON,
    "mistral": SLIDING,
    "mixtral": dict(SLIDING, **EXPERTS),
    "olmo2": COMMON,
    "olmo3": ALTERNATING,
    "phi": COMMON,
    "phi3": SLIDING,
    "qwen2": dict(SLIDING, use_sliding_window=True, max_window_layers=2),
    "qwen3": dict(COMMON, head_dim=16),
    "qwen3_moe": dict(COMMON, head_dim=16, **EXPERTS),
    "seed_oss": dict(COMMON, head_dim=16),
    "smollm3": COMMON,
    "stablelm": COMMON,
    "starcoder2": SLIDING,
}  # fmt: skip
"""What a config of each model type is made with."""
REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "jamba": (COMMON, "running state"),
    "lfm2": (dict(COMMON, layer_types=["conv", "full_attention"] * 2), "running state"),
    "mamba2": (dict(COMMON, num_heads=8, head_dim=8, expand=2, n_groups=2), "running state"),
    "llama4_text": (dict(COMMON, head_dim=16, attention_chunk_size=WINDOW, num_local_experts=2), "in chunks"),
}
"""Families that cannot be used, and what the refusal says."""


def make_model(family: str, settings: dict[str, object], seed: int = 0) -> PreTrainedModel:
    """A random model in float64, where two ways to compute one thing agree closely."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings)).double().eval()
        for name, weight in model.named_parameters():
            # What starts as a constant (norms, sinks, biases) must be seen to count.
            if weight.ndim < 2 and not name.endswith("e_score_correction_bias"):
                weight.data += 0.2 * torch.randn_like(weight)
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the faster ones know no float64
    return model


def make_family(family: str) -> Backbone:
    """A random backbone of a family, with the byte-level tokenizer of the tests."""
    return Backbone(make_model(family, FAMILIES[family]), make_tiny_tokenizer(), name=family, revision="0")
