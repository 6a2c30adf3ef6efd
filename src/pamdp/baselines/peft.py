"""PEFT: one adapter per user (OPPU), with BM25 over the user's earlier exchanges.

Owns its three steps: a task LoRA on other users, merged; a fresh LoRA on the user's own earlier turns; retrieval. All
that is personal is made from the history h_t that waits for a reply, and undone after it: nothing passes from one user
to the next, nor back from later turns. (The published code trains each user on all earlier users' data.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_TARGETS

from pamdp.baselines.config import OppuConfig, TuneConfig
from pamdp.baselines.method import Budget, Job, Method, no_preferred, register, untrained
from pamdp.baselines.sft import SFTExample, cut, fit, sft_example
from pamdp.baselines.tune import require_trl
from pamdp.config import Config
from pamdp.models.adapters import linear_names
from pamdp.models.backbone import Backbone
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy
from pamdp.models.recorded import Replies
from pamdp.prompts.render import load, render
from pamdp.runs import Run
from pamdp.types import Dialogue, History


def oppu(job: Job) -> PersonalReplier:
    """The task adapter, merged; users' adapters are fitted when they talk."""
    require_trl("rank_bm25")
    backbone, config = job.load(), job.tune.oppu
    examples = [
        sft_example(
            backbone.chat.history(dialogue.history(t), _system(backbone, dialogue.history(t), config)).ids,
            _target(backbone, turn.preferred, job.config),
        )
        for dialogue in job.train
        for t, turn in enumerate(dialogue.turns)
        if turn.preferred
    ]
    with job.open("PEFT", job.config, backbone) as run:
        tuned = fit(backbone, examples, config, run, job.config.seed)
    return PersonalReplier(tuned, job, run)


class PersonalReplier:
    """Replies to each history under an adapter made of that history alone.

    The task adapter is merged into BACKBONE. Of JOB, settings are used and dialogues are not; nothing is logged in RUN.
    """

    def __init__(self, backbone: Backbone, job: Job, run: Run) -> None:
        self.backbone, self.config, self.oppu, self.run = backbone, job.config, job.tune.oppu, run

    def write(self, dialogues: Sequence[Dialogue], progress: Callable[[int], None] | None = None) -> Replies:
        """One reply to every state."""
        out: Replies = {}
        for dialogue in dialogues:
            for t in range(len(dialogue.turns)):
                out[dialogue.id, t] = self.reply(dialogue.history(t))
                if progress is not None:
                    progress(1)
        return out

    def reply(self, history: History) -> str:
        """The reply to one history."""
        with self.personal(history) as backbone:
            policy = Policy(backbone, system=_system(backbone, history, self.oppu))
            return policy.replies([history], Sampling(self.config.rl.max_reply))[0]

    def own_example(self, history: History) -> SFTExample | None:
        """What the user's adapter learns: every reply that the history holds, in one sequence; None at the first turn.

        What waits for a reply is not in it: the sequence ends with the last reply. Nothing is retrieved for it, because
        a reply that stands before itself would only be copied.
        """
        if len(history) < 2:
            return None
        chat, earlier = self.backbone.chat, history[:-1]
        before = chat.history(earlier[:-1], load("assistant"))
        ids = [*before.ids, *_target(self.backbone, earlier[-1].content, self.config)]
        mask = [0] * len(ids)
        for head, message in zip(before.heads, earlier[1::2], strict=True):
            stop = head + len(_target(self.backbone, message.content, self.config))
            mask[head:stop] = [1] * (stop - head)
        return {"input_ids": ids, "completion_mask": mask}

    def targets(self) -> list[str]:
        """Full names of the modules that a user's own adapter changes: for a Llama q_proj and v_proj, as in OPPU.

        PEFT knows as much of many families; where it does not, all linear modules.
        """
        names = linear_names(self.backbone)
        known = PEFT_TARGETS.get(self.backbone.model.config.get_text_config().model_type, ("q_proj", "v_proj"))
        return [name for name in names if name.split(".")[-1] in known] or names

    @contextmanager
    def personal(self, history: History) -> Iterator[Backbone]:
        """The backbone with this user's adapter inside the block, and exactly as before after it."""
        example, model, targets = self.own_example(history), self.backbone.model, self.targets()
        kept = {
            name: weight.detach().clone()
            for name, weight in model.named_parameters()
            if name.removesuffix(".bias").removesuffix(".weight") in targets
        }
        # A handful of steps has no room to warm up: the first of them would be taken at a learning rate of 0.
        changes = {"epochs": self.oppu.user_epochs, "lr": self.oppu.user_lr, "warmup": 0.0}
        own = self.oppu.model_copy(update=changes)
        try:
            if example is None:
                yield self.backbone
            else:
                seed = self.config.seed
                yield fit(self.backbone, [example], own, self.run, seed, targets, log=False)
        finally:
            model.load_state_dict(kept, strict=False)


def retrieve(history: History, k: int) -> list[str]:
    """The k earlier exchanges that are most like the last message, in the order in which they happened.

    BM25+ is taken, whose weights stay positive: with a handful of exchanges plain BM25 gives a word that half of them
    have no weight at all.
    """
    exchanges = [f"They: {history[i].content}\nYou: {history[i + 1].content}" for i in range(0, len(history) - 1, 2)]
    if not exchanges or k == 0:
        return []
    from rank_bm25 import BM25Plus

    scores = BM25Plus([_words(text) for text in exchanges]).get_scores(_words(history[-1].content))
    best = sorted(range(len(exchanges)), key=lambda i: (-scores[i], -i))[:k]
    return [exchanges[i] for i in sorted(best)]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _system(backbone: Backbone, history: History, config: OppuConfig) -> str:
    found = retrieve(history, config.retrieved)
    if not found:
        return load("assistant")
    return render("assistant_recall", earlier=cut(backbone.chat, "\n".join(found), config.retrieved_tokens))


def _target(backbone: Backbone, reply: str, config: Config) -> list[int]:
    return backbone.chat.reply(reply)[: config.clone.max_reply]


def _budget(config: Config, tune: TuneConfig, turns: int) -> Budget:
    beside = tune.oppu.retrieved_tokens if tune.oppu.retrieved else 0
    weights = "LoRA, and one more per user"
    return replace(untrained(config, tune, turns), beside=beside, examples=turns * tune.oppu.epochs, weights=weights)


PEFT = register(Method("PEFT", oppu, _budget, lacks=no_preferred))
