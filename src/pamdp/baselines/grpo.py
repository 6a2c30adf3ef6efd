"""GRPO: groups of replies to one state, rewarded by the judge that rewards ours, by TRL's trainer.

Owns the reward as a function of completions. The original loss is named (`loss_type="grpo"`, β above 0), because TRL's
defaults have moved away from it. It starts from the bare backbone, so what its replies are compared with is Vanilla's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pamdp.baselines.config import TuneConfig
from pamdp.baselines.method import Budget, Job, Method, register, untrained
from pamdp.baselines.preference import ChatMessage, messages
from pamdp.baselines.replies import PolicyReplier
from pamdp.baselines.tune import make_trainer, require_trl, run_trainer
from pamdp.config import Config
from pamdp.env.reward import Reward
from pamdp.env.user import RecordedUser
from pamdp.models.backbone import Backbone
from pamdp.models.policy import Policy
from pamdp.prompts.render import load
from pamdp.train.offline import reference_replies
from pamdp.types import TimeStep


def grpo(job: Job) -> PolicyReplier:
    """Group-relative policy optimisation; a ModelError where TRL is not installed."""
    require_trl()
    backbone, config, rl, system = job.load(), job.tune.grpo, job.config.rl, load("assistant")
    steps = [
        TimeStep(dialogue.id, t, dialogue.history(t), user.profile(dialogue.history(t)))
        for dialogue in job.train
        for user in [RecordedUser(dialogue, rl.profile == "inferred")]
        for t in range(len(dialogue.turns))
    ]
    rows = [{"prompt": messages(step.history, system), "state": i} for i, step in enumerate(steps)]
    given = {"reward_funcs": rewards(job, backbone, steps)}
    # TRL leaves out a batch that is not full: with fewer states than one there would be none.
    config = config.model_copy(update={"batch_size": min(config.batch_size, len(steps))})
    with job.open("GRPO", job.config, backbone) as run:
        trainer = make_trainer(
            "GRPO", backbone, rows, config, run.path, job.config.seed, given=given, loss_type="grpo", beta=config.beta,
            # A micro-batch is one group; a step gathers `batch_size` of them.
            per_device_train_batch_size=rl.samples, num_generations=rl.samples,
            max_completion_length=rl.max_reply, temperature=config.temperature,
        )  # fmt: skip
        tuned = run_trainer(trainer, backbone, run, "grpo")
    return PolicyReplier(Policy(tuned, system=system), rl)


def rewards(job: Job, backbone: Backbone, steps: Sequence[TimeStep]) -> Callable[..., list[float | None]]:
    """The reward as TRL asks for it; None masks a reply whose verdict could not be had."""
    config, rl = job.config, job.config.rl
    if rl.reference != "preferred":
        config = config.model_copy(update={"rl": rl.model_copy(update={"reference": "vanilla"})})
    score = Reward(job.judge(), reference_replies(Policy(backbone), job.train, config), rl.soft)

    def judged(completions: Sequence[Sequence[ChatMessage]], state: Sequence[int], **_: object) -> list[float | None]:
        return score([steps[i] for i in state], [said[0]["content"].strip() for said in completions])

    return judged


def _budget(config: Config, tune: TuneConfig, turns: int) -> Budget:
    draws = turns * tune.grpo.epochs * config.rl.samples
    return replace(untrained(config, tune, turns), draws=draws, verdicts=draws, weights="LoRA")


GRPO = register(Method("GRPO", grpo, _budget))
