"""The settings of a comparison, offline or online: data, backbones, judges, seeds, and how each method learns.

Owns names, defaults and ranges, the presets, and which settings each method's run gets. Knows nothing of tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from pamdp.baselines.config import REINFORCED, TuneConfig
from pamdp.calls_config import JudgeConfig
from pamdp.config import ONLINE, CloneConfig, Config, DataConfig, ModelConfig, OnlineConfig, RLConfig
from pamdp.launcher_config import LauncherConfig
from pamdp.registry import ADVANTAGES, JUDGES
from pamdp.settings import Settings, load

Preset = Literal["cpu", "paper"]
BASE: dict[Preset, tuple[str, ...]] = {"cpu": ("plain",), "paper": ("paper",)}
"""Presets of the package that a preset of this folder stands on."""
UNTRAINED = ("Vanilla", "Prompt", "BC")
"""Methods that are played online as they are; the others are reinforced there."""
Recogniser = Literal["likelihood", "words", "profiler"]
C = TypeVar("C", bound=Settings)


class ComparisonConfig(Settings):
    """What every comparison decides.

    Attributes:
      seeds: of training.
      methods: rows by name.
      resamples: of the bootstrap.
      judge: who rewards, and how judges and scorers that are language models are reached.
      cache: folder of remembered answers; absent: the user's cache folder.
      launcher: who does the work.
      model, clone, rl: how methods learn, as in a run of their own.
    """

    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    methods: tuple[str, ...] = ()
    resamples: int = Field(default=10_000, ge=1)
    model: ModelConfig = ModelConfig()
    clone: CloneConfig = CloneConfig()
    rl: RLConfig = RLConfig()
    judge: JudgeConfig = JudgeConfig()
    cache: str | None = None
    launcher: LauncherConfig = LauncherConfig()

    @field_validator("seeds", "methods", "models", "judges", "scorers", "recognisers", check_fields=False)
    @classmethod
    def _distinct(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(values)) < len(values):
            raise ValueError("the same one stands twice")
        return values


class ReproduceConfig(ComparisonConfig):
    """Everything that decides what an offline comparison computes. All methods share it.

    Attributes:
      seeds: with folds over topics, also of the part that tests.
      methods: more rows than the table's own.
      models: backbones, each a column.
      judges: who grades; two or more, because the one that rewards is never the only one.
      scorers: language models that score single replies beside the comparisons; none by default.
      aloe, prefeval: the data of the columns; an empty path leaves the column out.
      tune: how methods learn that are no policies of this project.
    """

    renamed: ClassVar = {"grader": "judge", "reward": "judge.model", "data": "aloe"}
    models: tuple[str, ...] = Field(default=("embedded",), min_length=1)
    judges: tuple[str, ...] = Field(default=("signals", "reward-model"), min_length=2)
    judge: JudgeConfig = JudgeConfig(max_tokens=256)
    scorers: tuple[str, ...] = ()
    aloe: DataConfig = DataConfig()
    prefeval: DataConfig = DataConfig(path="", folds=3)
    tune: TuneConfig = TuneConfig()

    def of_job(self, model: str, data: DataConfig, seed: int) -> Config:
        """The settings of one method's run."""
        named = self.model.model_copy(update={"name": model})
        return Config(
            seed=seed, data=data, model=named, clone=self.clone, rl=self.rl, judge=self.judge, cache=self.cache
        )

    @model_validator(mode="after")
    def _names_its_model(self) -> ReproduceConfig:
        judge = self.judge
        if judge.kind != "embedded" and judge.model in JUDGES and "model" not in judge.model_fields_set:
            raise ValueError(f"judge.kind = {judge.kind!r} needs a language model's name; set judge.model")
        if judge.both_orders:
            raise ValueError(
                "judge.both_orders: comparisons ask in both orders anyway, and rewards in one; leave it out"
            )
        return self


class OnlineReproduceConfig(ComparisonConfig):
    """Everything that decides what the online comparison computes. All methods share it.

    Attributes:
      seeds: also of the users that evaluate.
      methods: rows, in order: those of UNTRAINED, methods that reinforce the cloned policy, and advantages by name.
      trained: method -> run of `pamdp train online` whose policy is taken in place of training one; "{seed}" in it
        stands for the seed, since a run stands in for the one seed that it was trained with.
      start: the cloned policy that all learn from: "shipped", or a run of `pamdp train bc`.
      train_users, test_users: how many users teach and evaluate, spread evenly; 0 for all. They share nobody.
      second: grades beside the judge that rewards (`judge`), which is never the only one; in both orders where it is.
      recognisers: who has to tell users apart in the audit: "likelihood" of their words under each persona, "words"
        that they share with it, or "profiler" (words that its profile shares with it).
      auditor: who says whether a simulated message suits its persona as the recorded one does: the backbone's
        "likelihood", or "judge", the language model of `judge`.
      others: personas beside the user's own among which it has to be told.
      data, online: as in a run of their own; model and clone are those of `start`.
    """

    renamed: ClassVar = ONLINE
    methods: tuple[str, ...] = (*UNTRAINED, *REINFORCED)
    trained: dict[str, str] = Field(default_factory=dict)
    start: str = "shipped"
    train_users: int = Field(default=0, ge=0)
    test_users: int = Field(default=0, ge=0)
    second: JudgeConfig = JudgeConfig(model="reward-model")
    recognisers: tuple[Recogniser, ...] = ("likelihood", "words")
    auditor: Literal["likelihood", "judge"] = "likelihood"
    others: int = Field(default=9, ge=1)
    data: DataConfig = DataConfig()
    online: OnlineConfig = OnlineConfig()

    @model_validator(mode="after")
    def _fits(self) -> OnlineReproduceConfig:
        names = (*UNTRAINED, *REINFORCED)
        if wrong := [name for name in self.methods if name not in names and name not in ADVANTAGES]:
            raise ValueError(f"methods: no method {wrong[0]!r}; there are: {', '.join(names)}")
        if wrong := [name for name in self.trained if not learns(name)]:
            raise ValueError(f"trained: {wrong[0]!r} is no method that learns; there are: {', '.join(REINFORCED)}")
        if self.second.model == self.judge.model:
            raise ValueError(
                f"judge and second are both {self.second.model!r}, and who rewards is never the only judge; "
                "set second.model to another judge"
            )
        if self.auditor == "judge" and self.judge.kind == "embedded":
            raise ValueError('auditor = "judge" needs a language model: set judge.kind to "openai" or "local"')
        if "profiler" in self.recognisers and self.rl.profile != "inferred":
            raise ValueError('recognisers names "profiler", and nobody infers profiles: set rl.profile to "inferred"')
        return self

    def of_run(self, seed: int, method: str = "PAMDP") -> Config:
        """The settings of one method's run."""
        rl = self.rl.model_copy(update={"advantage": REINFORCED.get(method, method)} if learns(method) else {})
        return Config(
            seed=seed, data=self.data, model=self.model, clone=self.clone, rl=rl, judge=self.judge, cache=self.cache,
            online=self.online,
        )  # fmt: skip

    def of_evaluation(self, seed: int) -> Config:
        """The settings of the world that evaluates: as in learning, but references are always written.

        Against its own reply a method ties every time, and a tie is worth +0.5: whoever writes u_g may be no method.
        """
        config = self.of_run(seed)
        return config.model_copy(update={"online": self.online.model_copy(update={"reference": "written"})})


def learns(method: str) -> bool:
    """Whether a method is reinforced online: it is in the table of such methods, or an advantage itself."""
    return method in REINFORCED or method in ADVANTAGES


def load_config(kind: type[C], preset: Preset, sources: Sequence[str | Path] = (), overrides: Sequence[str] = ()) -> C:
    """Settings of KIND: the preset, then sources, then overrides; a ConfigError where a key or a value is wrong."""
    name = f"online-{preset}.toml" if kind is OnlineReproduceConfig else f"{preset}.toml"
    with as_file(files("pamdp.reproduce") / "presets" / name) as path:
        return load(kind, [*BASE[preset], path, *sources], overrides)
