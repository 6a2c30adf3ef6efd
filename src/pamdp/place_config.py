"""Settings of where and how a language model of this machine computes.

Owns their names, and which of them a run may change when it goes on or is evaluated. What the machine at hand has of
them is models/place.py's to say.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from pamdp.settings import Settings


class PlaceConfig(Settings):
    """Where and how a model computes: its digits may depend on that, and nothing else.

    Attributes:
      device: "auto" (the first GPU that CUDA finds, else the CPU), "cpu", "cuda", "cuda:N" or "mps".
      dtype: of the model's weights and states; "auto" is bfloat16 on a GPU that has it, and float32 elsewhere. Whatever
        else learns or is summed up is float32.
      quantization: "4bit" keeps the linear layers' weights in four bits (bitsandbytes, CUDA only): LoRA on one card.
      attn: how attention is computed, as transformers names it; "auto" is what the model's makers and the device do
        best.
    """

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    quantization: Literal["none", "4bit"] = "none"
    attn: Literal["auto", "sdpa", "eager", "flex_attention", "flash_attention_2"] = "auto"

    @field_validator("device")
    @classmethod
    def _known(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
            raise ValueError("there are auto, cpu, cuda, cuda:N and mps")
        return device
