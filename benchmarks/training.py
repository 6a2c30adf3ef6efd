"""One pass of supervised learning over the replies of some dialogues: `python -m benchmarks.training`.

Ours is the cloning step, with its plain cross-entropy only (no steering, no context dropout), so that both sides
learn the same replies once. The peer is TRL's SFTTrainer with one padded sample for each turn, batch 1, which is its
best on a CPU, with as many optimizer steps.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from benchmarks import inputs
from benchmarks.arena import Duel, Options, main
from benchmarks.measure import Facts, Prepared
from pamdp.baselines.config import FitConfig, LoraFitConfig
from pamdp.baselines.sft import examples_of
from pamdp.baselines.tune import make_trainer, require_trl
from pamdp.config import CloneConfig, Config
from pamdp.models.policy import Policy, path
from pamdp.train.bc import Cloner
from pamdp.train.factory import new_policy
from pamdp.types import Dialogue

DEFAULT = Options(users=6, batch=6, repeats=1)
QUICK = Options(users=1, batch=1, repeats=1)
RANK = 8
TURNS, TOKENS = 6, 1200
"""Of the long dialogue."""


def ours(what: Literal["frozen", "lora", "full"], options: Options) -> Prepared:
    """The planner alone, with LoRA on all layers (so that the gradient reaches H), or with every weight."""
    backbone, chosen = inputs.backbone(), inputs.dialogues(options)
    clone = CloneConfig(
        backbone=what, lora_layers="all", lora_rank=RANK, batch_size=options.batch, steer=0, context_dropout=0
    )  # fmt: skip
    cloner = Cloner(new_policy(backbone, Config(clone=clone)), clone)
    examples, _ = cloner.prepare(chosen)
    total = -(-len(examples) // options.batch)
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)

    def work() -> Facts:
        losses = [
            cloner.update(examples[start : start + options.batch], rng, generator, total)["nll"]
            for start in range(0, len(examples), options.batch)
        ]
        return {"nll": losses}

    return Prepared(backbone.model, work, sum(1 for e in examples for group in e.replies if group))


def long(options: Options) -> Prepared:
    """One step of LoRA on one dialogue of six turns and TOKENS tokens: what memory it takes is the question."""
    backbone = inputs.backbone()
    chosen = [d for d in inputs.dialogues(replace(options, users=48, turns=TURNS)) if len(d.turns) == TURNS]
    count = 1
    while (tokens := len(backbone.chat.history(path(whole := _joined(chosen[:count])), "").ids)) < TOKENS:
        count += 1
    clone = CloneConfig(backbone="lora", lora_layers="all", lora_rank=RANK, batch_size=1, steer=0, context_dropout=0)
    cloner = Cloner(new_policy(backbone, Config(clone=clone)), clone)
    examples, _ = cloner.prepare([whole])
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)

    def work() -> Facts:
        return {"nll": [cloner.update(examples, rng, generator, 1)["nll"]], "tokens": tokens}

    return Prepared(backbone.model, work, TURNS)


def _joined(dialogues: Sequence[Dialogue]) -> Dialogue:
    """One dialogue whose turns hold those of all."""
    turns = tuple(
        replace(same[0], user=" ".join(t.user for t in same), preferred=" ".join(t.preferred or "" for t in same))
        for same in zip(*(d.turns for d in dialogues), strict=True)
    )
    return replace(dialogues[0], turns=turns)


def trl(what: Literal["lora", "full"], options: Options) -> Prepared:
    """TRL's SFTTrainer, one sample at a time."""
    require_trl()
    from transformers.trainer_callback import PrinterCallback

    backbone, chosen = inputs.plain_backbone(), inputs.dialogues(options)
    limit = CloneConfig().max_reply
    examples = examples_of(
        backbone.chat, chosen, Policy(backbone).system,
        lambda _, turn: backbone.chat.reply(turn.preferred or "")[:limit],
    )  # fmt: skip
    steps = -(-len(chosen) // options.batch)
    size = -(-len(examples) // steps)
    fit = FitConfig(epochs=1, batch_size=size)
    if what == "lora":
        fit = LoraFitConfig(epochs=1, batch_size=size, rank=RANK, alpha=2 * RANK, dropout=0)
    folder = Path(tempfile.mkdtemp(prefix="pamdp-benchmark"))
    trainer = make_trainer(
        "SFT", backbone, examples, fit, folder, 0, max_length=None, completion_only_loss=True, packing=False
    )
    trainer.remove_callback(PrinterCallback)

    def work() -> Facts:
        trainer.train()
        return {"nll": _losses(trainer.state.log_history)}

    return Prepared(backbone.model, work, len(examples))


def _losses(history: Sequence[dict[str, float]]) -> list[float]:
    return [float(row["loss"]) for row in history if "loss" in row]


if __name__ == "__main__":
    main(
        "training",
        {
            "ours, planner": partial(ours, "frozen"),
            "ours, LoRA": partial(ours, "lora"),
            "ours, full": partial(ours, "full"),
            "ours, LoRA, 1,200 tokens": long,
            "TRL, LoRA": partial(trl, "lora"),
            "TRL, full": partial(trl, "full"),
        },
        [
            Duel("ours, planner", "TRL, LoRA", 4.0),
            Duel("ours, LoRA", "TRL, LoRA", 2.5),
            Duel("ours, full", "TRL, full", 2.5),
        ],
        DEFAULT,
        QUICK,
        lambda run: {"nll": {name: measured.facts["nll"] for name, measured in run.items()}},
    )
