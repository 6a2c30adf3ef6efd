"""The settings of the online comparison: methods, users, judges, and how each method learns.

Owns names, defaults and ranges, the presets `online-cpu` and `online-paper`, and which settings each method's run gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pamdp.config import CloneConfig, Config, DataConfig, JudgeConfig, ModelConfig, OnlineConfig, RLConfig
from pamdp.reproduce.config import BASE, Preset
from pamdp.settings import Settings, load

ADVANTAGES = {"RL-base": "a2c", "UAAC": "uaac", "DCRL": "dcrl", "PAMDP": "pamdp", "ODC": "odc"}
"""Methods that learn from the cloned policy, and their `rl.advantage`. RL-base is A2C (eq. 2)."""
UNTRAINED = ("Vanilla", "Prompt", "BC")
METHODS = (*UNTRAINED, *ADVANTAGES)
Recogniser = Literal["likelihood", "words", "profiler"]


class OnlineReproduceConfig(Settings):
    """Everything that decides what the online comparison computes. All methods share it.

    Attributes:
      seeds: of training and of the users that evaluate.
      methods: rows, in order; see METHODS.
      trained: method -> run of `pamdp train online` whose policy is taken in place of training one; "{seed}" in it
        stands for the seed, since a run stands in for the one seed that it was trained with.
      start: the cloned policy that all learn from: "shipped", or a run of `pamdp train bc`.
      train_users, test_users: how many users teach and evaluate, spread evenly; 0 for all. They share nobody.
      second: grades beside the judge that rewards (`online.judge`), which is never the only one.
      recognisers: who has to tell users apart in the audit: "likelihood" of their words under each persona, "words"
        that they share with it, or "profiler" (words that its profile shares with it).
      auditor: who says whether a simulated message suits its persona as the recorded one does: the backbone's
        "likelihood", or "judge", the language model of `online.judge`.
      others: personas beside the user's own among which it has to be told.
      resamples: of the bootstrap.
      data, model, clone, rl, online: as in a run of their own; model and clone are those of `start`.
    """

    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    methods: tuple[str, ...] = METHODS
    trained: dict[str, str] = Field(default_factory=dict)
    start: str = "shipped"
    train_users: int = Field(default=0, ge=0)
    test_users: int = Field(default=0, ge=0)
    second: JudgeConfig = JudgeConfig(model="likelihood")
    recognisers: tuple[Recogniser, ...] = ("likelihood", "words")
    auditor: Literal["likelihood", "judge"] = "likelihood"
    others: int = Field(default=9, ge=1)
    resamples: int = Field(default=10_000, ge=1)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    clone: CloneConfig = CloneConfig()
    rl: RLConfig = RLConfig()
    online: OnlineConfig = OnlineConfig()

    @field_validator("methods")
    @classmethod
    def _known(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [name for name in values if name not in METHODS]:
            raise ValueError(f"no method {wrong[0]!r}; there are: {', '.join(METHODS)}")
        return values

    @field_validator("trained")
    @classmethod
    def _trainable(cls, values: dict[str, str]) -> dict[str, str]:
        if wrong := [name for name in values if name not in ADVANTAGES]:
            raise ValueError(f"{wrong[0]!r} is no method that learns; there are: {', '.join(ADVANTAGES)}")
        return values

    @field_validator("seeds", "methods", "recognisers")
    @classmethod
    def _distinct(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(values)) < len(values):
            raise ValueError("the same one stands twice")
        return values

    @model_validator(mode="after")
    def _fits(self) -> OnlineReproduceConfig:
        if self.second.model == self.online.judge.model:
            raise ValueError(
                f"online.judge and second are both {self.second.model!r}, and who rewards is never the only judge; "
                "set second.model to another judge"
            )
        if self.auditor == "judge" and self.online.judge.kind == "embedded":
            raise ValueError('auditor = "judge" needs a language model: set online.judge.kind to "openai" or "local"')
        if "profiler" in self.recognisers and self.rl.profile != "inferred":
            raise ValueError('recognisers names "profiler", and nobody infers profiles: set rl.profile to "inferred"')
        return self

    def given(self, method: str, seed: int) -> Path | None:
        """The run whose policy stands in for training METHOD with SEED, if there is one."""
        name = self.trained.get(method)
        return None if name is None else Path(name.replace("{seed}", str(seed)))

    def of_run(self, seed: int, method: str = "PAMDP") -> Config:
        """The settings of one method's run."""
        rl = self.rl.model_copy(update={"advantage": ADVANTAGES.get(method, self.rl.advantage)})
        return Config(seed=seed, data=self.data, model=self.model, clone=self.clone, rl=rl, online=self.online)

    def of_evaluation(self, seed: int) -> Config:
        """The settings of the world that evaluates: as in learning, but references are always written.

        Against its own reply a method ties every time, and a tie is worth +0.5: whoever writes u_g may be no method.
        """
        config = self.of_run(seed)
        return config.model_copy(update={"online": self.online.model_copy(update={"reference": "written"})})


def load_online_config(
    preset: Preset, sources: Sequence[str | Path] = (), overrides: Sequence[str] = ()
) -> OnlineReproduceConfig:
    """The preset, then further sources, then overrides.

    Raises:
      ConfigError: a key is unknown or a value wrong.
    """
    with as_file(files("pamdp.reproduce") / "presets" / f"online-{preset}.toml") as path:
        return load(OnlineReproduceConfig, [*BASE[preset], path, *sources], overrides)
