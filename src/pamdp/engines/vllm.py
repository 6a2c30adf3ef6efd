"""Replies by vLLM, in place of `generate`: it has the weights once more, and whatever else it needs comes in requests.

Owns how rows become requests and a policy's adapter a file. H(h), likelihoods and learning stay with the backbone.

A prompt is the history's tokens, then an action's embeddings. A shift of the reply's hidden states stands in the row of
embeddings that belongs to the history's last token: a token's row is no input of the model, but vLLM names what it
keeps of a prompt by tokens and embeddings, block by block. So keys and values from the shift on are found again under
the same shift and no other, and the history before it is shared by all replies to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save, save_file
from transformers import AutoConfig

from pamdp import ranks
from pamdp.config import Config
from pamdp.errors import ConfigError, ModelError
from pamdp.models.adapters import adapter_tensors, linear_names
from pamdp.models.backbone import Backbone
from pamdp.models.embedded import model_path, reading
from pamdp.models.generate import DecodeRow, Sampling
from pamdp.models.place import place_of
from pamdp.models.prefix import Prefix

if TYPE_CHECKING:
    from vllm import LLM
    from vllm.lora.request import LoRARequest

FAMILIES = ("llama",)
"""Types of models whose replies under vLLM were compared with `generate`'s: the hooks know where their layers are."""
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process: nothing outlives it
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # the hooks know the first one
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
"""What vLLM is told before it is imported, where the environment says nothing else."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Of adapters, as vLLM makes room for them."""


def require_engine(config: Config) -> None:
    """Refuse what vLLM cannot write here, where it is asked for, before anything is loaded.

    Raises:
      ConfigError: settings that it does not go with.
      ModelError: it is not installed, or computes elsewhere.
    """
    if config.engine.kind == "hf":
        return
    said, model = "engine.kind=vllm", config.model
    ranks.require_one(said)
    if config.clone.backbone == "full":
        raise ConfigError(f"{said} reads weights from disk, and clone.backbone=full changes them; set engine.kind=hf")
    if model.quantization != "none":
        raise ConfigError(f"{said} was not tried with model.quantization={model.quantization}; set engine.kind=hf")
    if find_spec("vllm") is None:
        raise ModelError(
            f"{said}: vLLM is not installed; `pip install 'pamdp[vllm]'` (docs/vllm.md), or engine.kind=hf"
        )
    with reading(model.name):
        family = AutoConfig.from_pretrained(model_path(model.name)).get_text_config().model_type
    if family not in FAMILIES:
        raise ModelError(f"{said} was tried with {' and '.join(FAMILIES)}, not with {family}; set engine.kind=hf")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm.platforms import current_platform

    device = place_of(model).device.type
    if current_platform.device_type != device:
        raise ModelError(
            f"{said}: this vLLM was built for {current_platform.device_type}, and the backbone computes on {device}; "
            "set model.device, or install the other build"
        )


def use_engine(backbone: Backbone, config: Config) -> Backbone:
    """BACKBONE, whose replies the engine of the settings writes from now on; see `require_engine`.

    It starts with the first reply.
    """
    backbone.writer = VllmWriter(config) if config.engine.kind == "vllm" else None
    return backbone


class VllmWriter:
    """A `Writer`: `generate` by vLLM, in this process."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._llm: LLM | None = None
        self._adapters: dict[str, LoRARequest] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="pamdp-vllm-")

    def __call__(
        self,
        backbone: Backbone,
        prefixes: Sequence[Prefix],
        rows: Sequence[DecodeRow],
        sampling: Sampling,
        batch: int = 64,
        progress: Callable[[int], None] | None = None,
        layer: int = -1,
    ) -> list[list[int]]:
        """See `Writer`; a ModelError where a history and its reply have no room in vLLM's memory."""
        if not rows or sampling.max_tokens < 1:
            return [[] for _ in rows]
        if self._llm is None:
            self._llm = _start(backbone, self.config)
        # vLLM itself would write what there is room for, and no more.
        longest = max(row.length + (0 if row.inject is None else len(row.inject)) for row in rows) + sampling.max_tokens
        if longest > (room := self._llm.llm_engine.vllm_config.model_config.max_model_len):
            raise ModelError(
                f"a history and its reply may have {longest} tokens, and vLLM has room for {room}; set engine.cache_gb "
                "higher, or engine.kind=hf"
            )
        if any(row.steer is not None for row in rows):
            backbone.require_between(layer)
            self._llm.collective_rpc("shift_at", args=(layer,))
        ids = [prefixes[row.prefix].encoded.ids[: row.length] for row in rows]
        prompts = [_prompt(backbone, known, row) for known, row in zip(ids, rows, strict=True)]
        params = [_params(backbone, row, sampling, layer) for row in rows]
        found = self._llm.generate(prompts, params, use_tqdm=False, lora_request=self._adapter(backbone))
        if progress is not None:
            progress(len(rows))
        ends = backbone.chat.ends
        return [list(takewhile(lambda token: token not in ends, one.outputs[0].token_ids)) for one in found]

    def _adapter(self, backbone: Backbone) -> LoRARequest | None:
        """The adapter in use, as a file of its own for every state of its weights."""
        if (name := backbone.active) is None:
            return None
        from vllm.lora.request import LoRARequest

        tensors = {
            f"base_model.model.{key}": x.cpu().contiguous() for key, x in adapter_tensors(backbone, name).items()
        }
        digest = hashlib.sha256(save(tensors)).hexdigest()
        if digest not in self._adapters:
            folder = Path(self._folder.name) / digest
            folder.mkdir()
            save_file(tensors, folder / "adapter_model.safetensors")
            made = backbone.model.peft_config[name]
            modules = sorted({key.split(".lora_")[0].rpartition(".")[2] for key in tensors})
            about = {"peft_type": "LORA", "r": made.r, "lora_alpha": made.lora_alpha, "target_modules": modules}
            (folder / "adapter_config.json").write_text(json.dumps(about), encoding="utf-8")
            self._adapters[digest] = LoRARequest(digest, len(self._adapters) + 1, str(folder))
        return self._adapters[digest]


def _start(backbone: Backbone, config: Config) -> LLM:
    from vllm import LLM

    rank = next((rank for rank in RANKS if rank >= config.clone.lora_rank), RANKS[-1])
    lora: dict[str, object] = {}
    if config.clone.backbone == "lora":
        # By default it wraps embeddings, too, which then take no prompt of tokens and rows of embeddings.
        modules = sorted({name.rpartition(".")[2] for name in linear_names(backbone)})
        lora = {"enable_lora": True, "max_lora_rank": rank, "lora_target_modules": modules}
    try:
        with torch.random.fork_rng():  # it seeds the numbers of the whole process
            return LLM(
                model_path(backbone.name),
                dtype=str(backbone.dtype).removeprefix("torch."),
                max_model_len=-1,
                kv_cache_memory_bytes=int(config.engine.cache_gb * 2**30),
                enable_prompt_embeds=True,
                enable_prefix_caching=True,
                enforce_eager=True,  # graphs would be recorded without the shift
                async_scheduling=False,  # a token is drawn with sight of those before it
                skip_tokenizer_init=True,
                logits_processors=["pamdp.engines.vllm_worker:Drawing"],
                worker_extension_cls="pamdp.engines.vllm_worker.Shifting",
                disable_log_stats=True,
                **lora,
            )
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"vLLM does not start: {' '.join(str(error).split())}; set engine.kind=hf") from error


def _prompt(backbone: Backbone, ids: Sequence[int], row: DecodeRow) -> dict[str, object]:
    """What vLLM is given to continue: tokens, and rows of embeddings where an action brings some."""
    if row.inject is None and row.steer is None:
        return {"prompt_token_ids": list(ids)}
    n = 0 if row.inject is None else len(row.inject)
    embeds = torch.zeros(len(ids) + n, backbone.d, dtype=backbone.dtype)
    if row.steer is not None:
        embeds[len(ids) - 1] = row.steer.to(embeds)
    if row.inject is not None:
        embeds[len(ids) :] = row.inject.to(embeds)
    return {
        "prompt_token_ids": [*ids, *[0] * n],
        "prompt_is_token_ids": [True] * len(ids) + [False] * n,
        "prompt_embeds": embeds,
    }


def _params(backbone: Backbone, row: DecodeRow, sampling: Sampling, layer: int) -> object:
    from vllm import SamplingParams

    how: dict[str, object] = {"draw": {"seed": row.seed, "sampling": asdict(sampling)}}
    if row.steer is not None:
        # As in `generate`: where no embedding is between, the last token of the history is shifted, too.
        start = row.length - (row.inject is None)
        how["shift"] = {"layer": layer, "row": row.length - 1, "start": start}
    return SamplingParams(
        temperature=0, max_tokens=sampling.max_tokens, stop_token_ids=list(backbone.chat.ends), detokenize=False,
        extra_args=how,
    )  # fmt: skip
