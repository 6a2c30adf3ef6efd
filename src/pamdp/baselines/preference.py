"""DPO: the preferred replies against the rejected ones, by TRL's trainer, from the bare backbone.

Owns the pairs. An adapter learns, so that the reference policy is the backbone without it.
"""

from __future__ import annotations

from pamdp.baselines import needs
from pamdp.baselines.config import TuneConfig
from pamdp.baselines.method import Budget, Job, Method, register
from pamdp.baselines.replies import PolicyReplier
from pamdp.baselines.tune import arguments, lora, require_trl, run_trainer
from pamdp.config import Config
from pamdp.errors import DataError
from pamdp.models.policy import Policy
from pamdp.prompts.render import load
from pamdp.types import History

ChatMessage = dict[str, str]
"""A message as TRL takes it."""


def dpo(job: Job) -> PolicyReplier:
    """Direct preference optimisation.

    Raises:
      DataError: no training turn has both replies.
      ModelError: TRL is not installed.
    """
    system = load("assistant")
    rows = [
        {"prompt": messages(dialogue.history(t), system), "chosen": _reply(turn.preferred),
         "rejected": _reply(turn.rejected)}
        for dialogue in job.train
        for t, turn in enumerate(dialogue.turns)
        if turn.preferred and turn.rejected
    ]  # fmt: skip
    if lacking := needs.pairs(job.train):
        raise DataError(lacking, fix="DPO needs data with both")
    require_trl()
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    backbone, config, clone = job.load(), job.tune.dpo, job.config.clone
    with job.open("DPO", job.config, backbone) as run:
        settings = DPOConfig(
            **arguments(config, backbone, run.path, job.config.seed),
            beta=config.beta,
            max_length=clone.max_context + clone.max_reply,
        )
        trainer = DPOTrainer(
            backbone.model, args=settings, train_dataset=Dataset.from_list(rows), processing_class=backbone.tokenizer,
            peft_config=lora(config),
        )  # fmt: skip
        tuned = run_trainer(trainer, backbone, run, "dpo")
    return PolicyReplier(Policy(tuned, system=system), job.config.rl)


def messages(history: History, system: str) -> list[ChatMessage]:
    """A history behind its instruction."""
    said = [{"role": m.role, "content": m.content.strip()} for m in history]
    return [{"role": "system", "content": system}, *said]


def _reply(text: str) -> list[ChatMessage]:
    return [{"role": "assistant", "content": text.strip()}]


def _budget(config: Config, tune: TuneConfig, turns: int) -> Budget:
    # Both replies of a pair are learned from.
    examples = 2 * turns * tune.dpo.epochs
    return Budget(config.clone.max_context, config.rl.max_reply, examples=examples, weights="LoRA")


DPO = register(Method("DPO", dpo, _budget, lacks=needs.pairs))
