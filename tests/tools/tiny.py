"""A random two-layer Llama with a byte-level tokenizer, built in memory in milliseconds."""

from __future__ import annotations

from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pamdp.models.backbone import Backbone

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TEXT = (
    "I am a nurse in a small town and I work nights. What should I cook when I come home? "
    "You could make a soup in the evening and warm it up in the morning. How do you like your tea? "
    "Nothing fancy, thanks. I like it when things are simple and the answer is short."
)


@cache
def _trained() -> str:
    """A byte-level BPE with a few dozen merges, so that token boundaries are not byte boundaries."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return str(tokenizer.to_str())


def make_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A fast tokenizer with offsets and a chat template in ChatML."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def make_tiny_backbone(seed: int = 0, dtype: torch.dtype = torch.float32) -> Backbone:
    """A random Llama: 2 layers, width 32, 4 heads on 2 key-value heads; its logits are far from uniform.

    In float64 two ways to compute one thing agree so closely that tests of equality can be strict.
    """
    tokenizer = make_tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return Backbone(model.to(dtype), tokenizer, name="tiny", revision=str(seed))
