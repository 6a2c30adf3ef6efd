"""The way to TRL and PEFT: what all trainers share, adapters, and a model that comes back as a `Backbone`.

Owns how a trainer is fed, logged and unwrapped. Knows nothing of what is learned. TRL is an extra of this package; it
is imported when a method that needs it learns, because it takes seconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import torch
from peft import LoraConfig, PeftModel

from pamdp.baselines.config import FitConfig, LoraFitConfig
from pamdp.errors import ModelError
from pamdp.models.backbone import Backbone
from pamdp.progress import Progress
from pamdp.runs import Run

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback, TrainerState


def require_trl(*others: str) -> None:
    """A ModelError for what is missing of TRL and OTHERS before work is done; libraries' progress bars are kept off."""
    missing = [name for name in ("trl", "datasets", *others) if find_spec(name) is None]
    if missing:
        raise ModelError(f"this method needs {' and '.join(missing)}; `pip install 'pamdp[baselines]'` brings them")
    from datasets import disable_progress_bars

    disable_progress_bars()
    # TRL sets by its old name what transformers has renamed; nobody who reads this can do anything about it.
    warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing` is deprecated", FutureWarning)


def make_trainer(
    kind: Literal["SFT", "DPO", "GRPO"],
    backbone: Backbone,
    rows: Sequence[Mapping[str, object]],
    fit: FitConfig,
    folder: Path,
    seed: int,
    targets: list[str] | Literal["all-linear"] = "all-linear",
    given: Mapping[str, object] = MappingProxyType({}),
    **settings: object,
) -> Trainer:
    """A trainer of TRL: one example at a time, gathered to a batch; nothing saved or sent.

    Args:
      fit: an adapter learns, on the modules TARGETS, where it describes one; else every weight.
      given: what this kind of trainer takes besides.
      settings: of this kind of trainer; they win over those that all share.
    """
    import trl
    from datasets import Dataset

    shared = {
        "output_dir": str(folder),
        "num_train_epochs": fit.epochs,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": fit.batch_size,
        "learning_rate": fit.lr,
        "weight_decay": fit.weight_decay,
        "warmup_steps": fit.warmup,
        "lr_scheduler_type": "linear",
        "max_grad_norm": fit.clip,
        "gradient_checkpointing": fit.checkpointing,
        "bf16": backbone.dtype == torch.bfloat16,
        "use_cpu": backbone.device.type == "cpu",
        "seed": seed,
        "data_seed": seed,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    if backbone.identity["quantization"] != "none":
        raise ModelError(f"{kind} of TRL would merge what it learned into rounded weights; set model.quantization=none")
    adapter = None
    if isinstance(fit, LoraFitConfig):
        shape = {"r": fit.rank, "lora_alpha": fit.alpha, "lora_dropout": fit.dropout}
        adapter = LoraConfig(**shape, target_modules=targets, task_type="CAUSAL_LM")
    elif backbone.dtype != torch.float32:
        backbone.model.float()  # what an optimizer moves is float32; passes are cast (`bf16`), see `run_trainer`
    backbone.model.requires_grad_(adapter is None)
    trainer: Trainer = getattr(trl, f"{kind}Trainer")(
        backbone.model, args=getattr(trl, f"{kind}Config")(**shared | settings), train_dataset=Dataset.from_list(rows),
        processing_class=backbone.tokenizer, peft_config=adapter, **given,
    )  # fmt: skip
    return trainer


def run_trainer(trainer: Trainer, backbone: Backbone, run: Run | None, what: str) -> Backbone:
    """Train; an adapter is merged into the weights, which are then frozen.

    The loss is logged in RUN as the stage WHAT, from the first step on; without a run nothing is shown either.
    """
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    total = -(-len(trainer.get_train_dataloader()) // trainer.args.gradient_accumulation_steps)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore")
        if run is not None:
            run.rewind(0, what)
            bar = stack.enter_context(Progress(what, int(total * trainer.args.num_train_epochs)))
            trainer.add_callback(_callback(run, bar, what))
        trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    if trainer.args.bf16:
        model.to(torch.bfloat16)
    model.config.use_cache = True
    return Backbone(model, backbone.tokenizer, backbone.name, backbone.revision)


def _callback(run: Run, bar: Progress, what: str) -> TrainerCallback:
    from transformers import TrainerCallback

    class Log(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
        def on_log(
            self, args: object, state: TrainerState, control: object, logs: Mapping[str, object], **_: object
        ) -> None:
            if "loss" in logs:  # once a step; what sums up all of them has none
                numbers = {key: float(x) for key, x in logs.items() if isinstance(x, (int, float))}
                timeless = {key: x for key, x in numbers.items() if "time" not in key and "per_second" not in key}
                run.log(int(state.global_step), timeless, what)
                bar.advance(1)

    return Log()
