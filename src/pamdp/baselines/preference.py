"""DPO: the preferred replies against the rejected ones, by TRL's trainer, from the bare backbone.

Owns the pairs. An adapter learns, so that the reference policy is the backbone without it.
"""

from __future__ import annotations

from dataclasses import replace

from pamdp.baselines.config import TuneConfig
from pamdp.baselines.method import Budget, Job, Method, no_pairs, register, untrained
from pamdp.baselines.replies import PolicyReplier
from pamdp.baselines.tune import make_trainer, require_trl, run_trainer
from pamdp.config import Config
from pamdp.errors import DataError
from pamdp.models.policy import Policy
from pamdp.prompts.render import load
from pamdp.types import History

ChatMessage = dict[str, str]
"""A message as TRL takes it."""


def dpo(job: Job) -> PolicyReplier:
    """Direct preference optimisation; a DataError where no turn has both replies, a ModelError without TRL."""
    system = load("assistant")
    rows = [
        {"prompt": messages(dialogue.history(t), system), "chosen": _reply(turn.preferred),
         "rejected": _reply(turn.rejected)}
        for dialogue in job.train
        for t, turn in enumerate(dialogue.turns)
        if turn.preferred and turn.rejected
    ]  # fmt: skip
    if lacking := no_pairs(job.train):
        raise DataError(lacking, fix="DPO needs data with both")
    require_trl()
    backbone, config, clone = job.load(), job.tune.dpo, job.config.clone
    with job.open("DPO", job.config, backbone) as run:
        trainer = make_trainer(
            "DPO", backbone, rows, config, run.path, job.config.seed,
            beta=config.beta, max_length=clone.max_context + clone.max_reply,
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
    return replace(untrained(config, tune, turns), examples=2 * turns * tune.dpo.epochs, weights="LoRA")


DPO = register(Method("DPO", dpo, _budget, lacks=no_pairs))
