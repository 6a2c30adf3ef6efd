"""The settings of a comparison: which data, backbones, judges and seeds, and how each method learns.

Owns names, defaults and ranges, and the presets `cpu` and `paper`. Knows nothing of tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from pamdp.baselines.config import TuneConfig
from pamdp.config import CloneConfig, Config, DataConfig, GraderConfig, ModelConfig, RLConfig
from pamdp.settings import Settings, load

Preset = Literal["cpu", "paper"]
BASE: dict[str, tuple[str, ...]] = {"cpu": (), "paper": ("paper",)}
"""Presets of the package that a preset of this folder stands on."""


class ReproduceConfig(Settings):
    """Everything that decides what a comparison computes. All methods share it.

    Attributes:
      seeds: of training; with folds over topics, also of the part that tests.
      models: backbones, each a column.
      judges: who grades; two or more, because the one that rewards is never the only one.
      reward: who rewards.
      scorers: language models that score single replies beside the comparisons; none by default.
      grader: how judges and scorers that are language models are reached.
      methods: more rows than the table's own.
      aloe, prefeval: the data of the columns; an empty path leaves the column out.
      resamples: of the bootstrap.
      model, clone, rl, tune: how methods learn, as in a run of their own.
    """

    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    models: tuple[str, ...] = Field(default=("embedded",), min_length=1)
    judges: tuple[str, ...] = Field(default=("match+sense", "likelihood"), min_length=2)
    reward: str = "match+sense"
    scorers: tuple[str, ...] = ()
    grader: GraderConfig = GraderConfig()
    methods: tuple[str, ...] = ()
    aloe: DataConfig = DataConfig()
    prefeval: DataConfig = DataConfig(path="", folds=3)
    resamples: int = Field(default=10_000, ge=1)
    model: ModelConfig = ModelConfig()
    clone: CloneConfig = CloneConfig()
    rl: RLConfig = RLConfig()
    tune: TuneConfig = TuneConfig()

    @field_validator("seeds", "models", "judges", "scorers")
    @classmethod
    def _distinct(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(values)) < len(values):
            raise ValueError("the same one stands twice")
        return values

    def of_job(self, model: str, data: DataConfig, seed: int) -> Config:
        """The settings of one method's run."""
        named = self.model.model_copy(update={"name": model})
        return Config(seed=seed, data=data, model=named, clone=self.clone, rl=self.rl)


def load_config(preset: Preset, sources: Sequence[str | Path] = (), overrides: Sequence[str] = ()) -> ReproduceConfig:
    """The preset, then further sources, then overrides.

    Raises:
      ConfigError: a key is unknown or a value wrong.
    """
    with as_file(files("pamdp.reproduce") / "presets" / f"{preset}.toml") as path:
        return load(ReproduceConfig, [*BASE[preset], path, *sources], overrides)
