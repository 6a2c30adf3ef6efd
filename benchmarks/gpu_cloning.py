"""Cloning on a card, by us and by others: LoRA on the replies of some dialogues.

Owns the contenders of `benchmarks.gpu` that learn. Knows nothing of budgets, files and goals.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from benchmarks import inputs
from benchmarks.arena import Options
from benchmarks.gpu_work import Facts, Work, plain
from pamdp.baselines.config import LoraFitConfig
from pamdp.baselines.sft import SFTExample, examples_of
from pamdp.baselines.tune import make_trainer, require_trl
from pamdp.config import CloneConfig, Config
from pamdp.models.policy import Policy, path
from pamdp.train.bc import Cloner
from pamdp.train.factory import new_policy
from pamdp.types import Dialogue

RANK = 8


def our_cloning(work: Work, what: Literal["frozen", "lora"]) -> Facts:
    """The cloning step without steering and context dropout: planner alone, or LoRA on all layers."""
    clone = CloneConfig(
        backbone=what, lora_layers="all", lora_rank=RANK, batch_size=work.step, steer=0, context_dropout=0
    )
    cloner = Cloner(new_policy(work.backbone, Config(clone=clone)), clone)
    examples, _ = cloner.prepare(_cloned(work))
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)

    def learn() -> list[float]:
        batches = [examples[i : i + work.step] for i in range(0, len(examples), work.step)]
        return [cloner.update(batch, rng, generator, 1000)["nll"] for batch in batches]

    cloner.update(examples[: work.step], rng, generator, 1000)
    histories = sum(len(work.backbone.chat.history(path(d), Policy(work.backbone).system).ids) for d in _cloned(work))
    replies = sum(sum(sample["completion_mask"]) for sample in _samples(work))
    return _cloning(work, histories + replies, *work.timed(learn))


def peft_cloning(work: Work) -> Facts:
    """A plain loop with peft and AdamW over padded samples, one for each turn, with the loss of `labels`."""
    from peft import LoraConfig, get_peft_model

    samples, end = _samples(work), work.backbone.chat.end
    with plain(work.backbone):
        model = get_peft_model(
            work.backbone.model,
            LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
        model.train()

        def step(some: Sequence[SFTExample]) -> Tensor:
            width = max(len(sample["input_ids"]) for sample in some)
            rows = [(s["input_ids"], s["completion_mask"], [0] * (width - len(s["input_ids"]))) for s in some]
            ids = torch.tensor([[*ids, *(end for _ in pad)] for ids, _, pad in rows], device=work.device)
            seen = torch.tensor([[*(1 for _ in ids), *pad] for ids, _, pad in rows], device=work.device)
            learned = torch.tensor([[*mask, *pad] for _, mask, pad in rows], device=work.device)
            loss = model(input_ids=ids, attention_mask=seen, labels=ids.masked_fill(learned == 0, -100)).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return torch.as_tensor(loss.detach())

        def learn() -> list[float]:
            return [float(step(samples[i : i + work.step])) for i in range(0, len(samples), work.step)]

        try:
            step(samples[: work.step])
            return _cloning(work, _tokens(samples), *work.timed(learn))
        finally:
            model.eval()
            model.unload()


def trl_cloning(work: Work) -> Facts:
    """TRL's SFTTrainer with LoRA on the same samples, padded."""
    require_trl()
    samples = _samples(work)
    fit = LoraFitConfig(epochs=1, batch_size=1, rank=RANK, alpha=2 * RANK, dropout=0)
    with plain(work.backbone):
        trainer = make_trainer(
            "SFT", work.backbone, samples, fit, Path(tempfile.mkdtemp(prefix="pamdp-benchmark")), 0,
            max_length=None, completion_only_loss=True, packing=False, per_device_train_batch_size=work.step,
        )  # fmt: skip
        try:
            seconds, _ = work.timed(trainer.train)
        finally:
            trainer.model.unload()
            work.backbone.model.eval()
    return _cloning(
        work, _tokens(samples), seconds, [row["loss"] for row in trainer.state.log_history if "loss" in row]
    )


def _cloned(work: Work) -> list[Dialogue]:
    return inputs.dialogues(Options(users=work.cloned, turns=work.turns))


def _samples(work: Work) -> list[SFTExample]:
    limit, chat = CloneConfig().max_reply, work.backbone.chat
    return examples_of(
        chat, _cloned(work), Policy(work.backbone).system, lambda _, turn: chat.reply(turn.preferred or "")[:limit]
    )


def _tokens(samples: Sequence[SFTExample]) -> int:
    return sum(len(sample["input_ids"]) for sample in samples)


def _cloning(work: Work, tokens: int, seconds: float, losses: Sequence[float]) -> Facts:
    """With LoRA a token takes four operations for each weight; what pads does not count."""
    share = 4 * work.parameters * tokens / seconds / work.rate
    return {"dialogues/s": work.cloned / seconds, "share": share, "nll": [round(x, 3) for x in losses[:2]]}
