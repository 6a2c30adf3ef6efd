"""FPFT and CoT: full fine-tuning on the preferred replies, without and with the user's profile written first.

Owns examples as tokens and their fitting, which OPPU uses too. The loss is on the reply only. Tokens are made by the
same code that generation uses, so that nothing is tokenised in two ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from pamdp.baselines.config import FitConfig, TuneConfig
from pamdp.baselines.method import Budget, Job, Method, no_preferred, register, untrained
from pamdp.baselines.replies import PolicyReplier
from pamdp.baselines.tune import make_trainer, require_trl, run_trainer
from pamdp.config import Config
from pamdp.errors import DataError
from pamdp.models.backbone import Backbone
from pamdp.models.chat import ChatEncoder
from pamdp.models.policy import Policy, path
from pamdp.models.recorded import Replies
from pamdp.prompts.render import load
from pamdp.runs import Run
from pamdp.types import Dialogue, Turn

SFTExample = dict[str, list[int]]
"""Tokens (`input_ids`), and which of them are learned (`completion_mask`): 1 for a reply's, 0 for all others."""


def sft_example(history: Sequence[int], reply: Sequence[int]) -> SFTExample:
    """A history and the one reply to learn."""
    return {"input_ids": [*history, *reply], "completion_mask": [0] * len(history) + [1] * len(reply)}


def fit(
    backbone: Backbone,
    examples: Sequence[SFTExample],
    config: FitConfig,
    run: Run,
    seed: int,
    targets: list[str] | Literal["all-linear"] = "all-linear",
    log: bool = True,
) -> Backbone:
    """Fit BACKBONE to the replies: its adapter, which is then merged, where CONFIG describes one; else every weight.

    A DataError where there is nothing to learn from, a ModelError where TRL is not installed.
    """
    if not examples:
        raise DataError("no training turn has a preferred reply", fix="supervised methods need labelled dialogues")
    require_trl()
    trainer = make_trainer(
        "SFT", backbone, examples, config, run.path, seed, targets,
        max_length=None, completion_only_loss=True, packing=False,
    )  # fmt: skip
    return run_trainer(trainer, backbone, run if log else None, "tuning")


def examples_of(
    chat: ChatEncoder, dialogues: Sequence[Dialogue], system: str, target: Callable[[Dialogue, Turn], list[int]]
) -> list[SFTExample]:
    """One example for each turn with a preferred reply; TARGET gives its tokens."""
    return [
        sft_example(encoded.ids[:head], target(dialogue, turn))
        for dialogue in dialogues
        for encoded in [chat.history(path(dialogue), system)]
        for head, turn in zip(encoded.heads, dialogue.turns, strict=True)
        if turn.preferred
    ]


def fpft(job: Job) -> PolicyReplier:
    """Every weight, on (history, reply)."""
    backbone, system = job.load(), load("assistant")
    limit = job.config.clone.max_reply
    examples = examples_of(
        backbone.chat, job.train, system, lambda _, turn: backbone.chat.reply(turn.preferred or "")[:limit]
    )
    with job.open("FPFT", job.config, backbone) as run:
        tuned = fit(backbone, examples, job.tune.full, run, job.config.seed)
    return PolicyReplier(Policy(tuned, system=system), job.config.rl)


def cot(job: Job) -> Thinker:
    """Every weight, on (history, profile and then reply).

    The profile of a training turn is the one inferred by then, or the whole persona where the data infer none.
    """
    backbone, system = job.load(), load("assistant_think")
    chat, limit = backbone.chat, job.config.clone.max_reply

    def target(dialogue: Dialogue, turn: Turn) -> list[int]:
        profile = " ".join((turn.inferred.text or dialogue.persona.text).split())
        return chat.reply(f"{cut(chat, profile, job.tune.thought)}\n{cut(chat, turn.preferred or '', limit)}")

    with job.open("CoT", job.config, backbone) as run:
        tuned = fit(backbone, examples_of(chat, job.train, system, target), job.tune.full, run, job.config.seed)
    return Thinker(Policy(tuned, system=system), job)


class Thinker:
    """Writes a line on the user, then the reply; only the reply is said.

    Where no second line was written, what was written is the reply.
    """

    def __init__(self, policy: Policy, job: Job) -> None:
        self.policy, self.limit = policy, job.config.rl.max_reply
        self.config = job.config.rl.model_copy(update={"max_reply": job.tune.thought + self.limit})

    def write(self, dialogues: Sequence[Dialogue], progress: Callable[[int], None] | None = None) -> Replies:
        """One reply to every state."""
        written = PolicyReplier(self.policy, self.config).write(dialogues, progress)
        return {key: self.said(text) for key, text in written.items()}

    def said(self, text: str) -> str:
        """The reply in what was written, no longer than any other method's."""
        _, _, after = text.partition("\n")
        return cut(self.policy.backbone.chat, after.strip() or text, self.limit)


def cut(chat: ChatEncoder, text: str, tokens: int) -> str:
    """The first TOKENS tokens of a text."""
    return chat.decode(chat.reply(text)[:-1][:tokens])


def _budget(config: Config, tune: TuneConfig, turns: int) -> Budget:
    return replace(untrained(config, tune, turns), examples=turns * tune.full.epochs, weights="all")


def _budget_cot(config: Config, tune: TuneConfig, turns: int) -> Budget:
    return replace(_budget(config, tune, turns), beside=tune.thought)


FPFT = register(Method("FPFT", fpft, _budget, lacks=no_preferred))
COT = register(Method("CoT", cot, _budget_cot, lacks=no_preferred))
