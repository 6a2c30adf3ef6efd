"""The settings of the baselines, one small model per kind of training.

Owns names, defaults and ranges. Knows nothing of trainers. Defaults are those of each method's own publication where it
says so (LoRA of OPPU, β of DPO), else the paper's Table 4 for full fine-tuning.
"""

from __future__ import annotations

from pydantic import Field

from pamdp.settings import Settings

REINFORCED = {"RL-base": "a2c", "UAAC": "uaac", "DCRL": "dcrl", "PAMDP": "pamdp", "ODC": "odc"}
"""Methods that reinforce the clone -> `rl.advantage`; every other registered advantage is a method by its own name."""


class FitConfig(Settings):
    """How gradient steps are made; all schedules warm up and then fall linearly to zero.

    Attributes:
      epochs, batch_size: passes over the examples, and examples per step.
      lr, weight_decay: of AdamW.
      warmup: share of the steps in which the learning rate rises.
      clip: largest gradient norm.
      checkpointing: compute activations again instead of keeping them; for large backbones.
    """

    epochs: int = Field(default=3, ge=1)
    batch_size: int = Field(default=8, ge=1)
    lr: float = Field(default=2e-5, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    clip: float = Field(default=1.0, gt=0)
    checkpointing: bool = False


class LoraFitConfig(FitConfig):
    """Gradient steps on LoRA adapters.

    Attributes:
      rank, alpha, dropout: of the adapters.
    """

    rank: int = Field(default=8, ge=1)
    alpha: int = Field(default=8, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)


class OppuConfig(LoraFitConfig):
    """One PEFT per user (OPPU): a task LoRA on other users, then a fresh one on the user's own earlier turns.

    Attributes:
      user_epochs, user_lr: of the user's adapter.
      retrieved: how many earlier exchanges BM25 puts before the history again; 0 for none.
      retrieved_tokens: most tokens of all of them together.
    """

    epochs: int = Field(default=2, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    clip: float = Field(default=0.3, gt=0)
    user_epochs: int = Field(default=2, ge=1)
    user_lr: float = Field(default=1e-4, gt=0)
    retrieved: int = Field(default=1, ge=0)
    retrieved_tokens: int = Field(default=96, ge=1)


class DpoConfig(LoraFitConfig):
    """Direct preference optimisation.

    Attributes:
      beta: weight of the KL term.
    """

    epochs: int = Field(default=1, ge=1)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    beta: float = Field(default=0.1, gt=0)


class GrpoConfig(LoraFitConfig):
    """Group-relative policy optimisation; a group has `rl.samples` replies, and `epochs` stands beside `rl.rounds`.

    Attributes:
      beta: weight of the KL term; above 0, as in the original.
      temperature: of the draws.
    """

    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    beta: float = Field(default=0.04, gt=0)
    temperature: float = Field(default=1.0, gt=0)


class TuneConfig(Settings):
    """All baselines that learn.

    Attributes:
      full: full fine-tuning, of FPFT and CoT.
      thought: most tokens of the profile that CoT writes before its reply.
      oppu, dpo, grpo: one part per method.
    """

    full: FitConfig = FitConfig()
    thought: int = Field(default=64, ge=1)
    oppu: OppuConfig = OppuConfig()
    dpo: DpoConfig = DpoConfig()
    grpo: GrpoConfig = GrpoConfig()
