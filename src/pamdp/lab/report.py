"""The lab's results: what was measured, under which fixed settings, as a table, JSON and a figure.

Owns their form. Knows nothing of how they come about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from rich.table import Table
from rich.text import Text
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LabResult:
    """A figure with its 95 % interval; without one where it is exact."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Value and half width; counts without decimals, tiny errors as powers of ten."""
        if self.low is None or self.high is None:
            return f"{self.value:.0f}" if self.value == round(self.value) else f"{self.value:.1e}"
        return f"{self.value:.2f} ±{(self.high - self.low) / 2:.2f}"


Row = Mapping[str, LabResult]
"""One problem: a figure for each method."""


@dataclass(frozen=True, slots=True)
class Section:
    """One table: a problem a row, a method a column; every row has the same methods.

    Attributes:
      name: short name, for JSON.
      title: what is shown, and whether less or more is better.
      settings: all that was fixed before the run.
      rows: by problem, then by method.
    """

    name: str
    title: str
    settings: Mapping[str, str | int | float]
    rows: Mapping[str, Row]

    @property
    def methods(self) -> list[str]:
        """Names of the columns."""
        return list(next(iter(self.rows.values())))

    @property
    def has_intervals(self) -> bool:
        """Whether a figure has an interval."""
        return any(cell.low is not None for row in self.rows.values() for cell in row.values())

    def table(self) -> Table:
        """The table for a terminal, the settings below it."""
        caption = " · ".join(f"{name}: {value}" for name, value in self.settings.items())
        table = Table(title=Text(self.title), caption=Text(caption), title_justify="left", caption_justify="left")
        table.add_column("")
        for method in self.methods:
            table.add_column(Text(method), justify="right")
        for problem, row in self.rows.items():
            table.add_row(Text(problem), *map(str, row.values()))
        return table


@dataclass(frozen=True, slots=True)
class LabReport:
    """All sections of one run of the benchmark."""

    sections: tuple[Section, ...]
    seconds: float

    def to_json(self) -> str:
        """The whole report as JSON text."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    def figure(self, path: str | Path) -> None:
        """Write a picture of every section that has intervals, in the format that the path's ending names."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        shown = [section for section in self.sections if section.has_intervals]
        heights = [len(section.rows) for section in shown]
        figure = Figure(figsize=(11, 1.6 * len(shown) + 0.42 * sum(heights)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=[height + 1 for height in heights])
        for axis, section in zip(axes[:, 0], shown, strict=True):
            for i, method in enumerate(section.methods):
                cells = [row[method] for row in section.rows.values()]
                low, value, high = np.array([(cell.low, cell.value, cell.high) for cell in cells], dtype=float).T
                place = np.arange(len(cells)) + 0.7 * (i / len(section.methods) - 0.5)
                axis.errorbar(value, place, xerr=[value - low, high - value], fmt="o", markersize=4, label=method)
            axis.set_yticks(range(len(section.rows)), list(section.rows))
            axis.invert_yaxis()
            axis.set_title(section.title, fontsize=9, loc="left")
            axis.grid(axis="x", alpha=0.3)
            axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
        figure.savefig(str(path), dpi=150)


def mean_cell(values: Float[Tensor, " n"]) -> LabResult:
    """Mean over independent runs, with the normal 95 % interval of the mean."""
    mean, half = float(values.mean()), 1.96 * float(values.std()) / len(values) ** 0.5
    return LabResult(mean, mean - half, mean + half)


def ratio_cell(values: Float[Tensor, " n"], reference: Float[Tensor, " n"]) -> LabResult:
    """Geometric mean of the ratio over independent problems, with the normal 95 % interval of the mean logarithm."""
    logs = mean_cell((values / reference).log())
    return LabResult(*torch.tensor([logs.value, logs.low, logs.high], dtype=torch.float64).exp().tolist())


def mean_ratio_cell(values: Float[Tensor, " n"], reference: Float[Tensor, " n"], *, seed: int = 0) -> LabResult:
    """Ratio of two means over the same runs, with the paired bootstrap's 95 % interval (1,000 resamples)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(values), (1000, len(values)), generator=generator)
    low, high = (values[drawn].mean(1) / reference[drawn].mean(1)).quantile(
        torch.tensor([0.025, 0.975], dtype=values.dtype)
    )
    return LabResult(float(values.mean() / reference.mean()), float(low), float(high))
