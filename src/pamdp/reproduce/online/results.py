"""From stored rewards to Table 3 and Figure 4: curves, leads over Vanilla and BC, calls, and the paper's figures.

Owns what the results are and which differences count as significant. Reads files only: no model is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pamdp.evaluation.returns import Curve, Lead, curves, leads
from pamdp.evaluation.significance import holm
from pamdp.files import Json
from pamdp.reproduce.online.config import ADVANTAGES, OnlineReproduceConfig
from pamdp.reproduce.online.files import run_folder
from pamdp.reproduce.online.work import read_steps

TITLES = {"table3": "Table 3: return of dialogues with simulated users", "fig4": "Figure 4: gain of each step"}
BASELINES = ("Vanilla", "BC")
PRINTED: dict[str, float] = {"UAAC": 1.5784, "DCRL": 1.4305, "PAMDP": 1.7389}
"""Final returns that the paper states (section 4.2); those of UAAC and DCRL by their distance from its own method."""
PRINTED_GAIN: dict[str, float] = {"PAMDP": 0.6173}
"""Gain of the last step that the paper states."""


@dataclass(frozen=True, slots=True)
class Advance:
    """A lead with its p-value corrected for all leads under the same judge."""

    lead: Lead
    p_holm: float

    @property
    def significant(self) -> bool:
        """Whether the interval of the final difference excludes 0 and the corrected p-value is below .05."""
        return self.lead.returns[-1].sign != 0 and self.p_holm < 0.05


@dataclass(frozen=True, slots=True)
class OnlineResults:
    """All results of a run.

    Attributes:
      curves, advances: of every method under every judge.
      users: how many users evaluate.
      calls: method -> role -> calls that were answered while it learned, all seeds together.
      judges: names; the first one rewarded.
    """

    curves: list[Curve]
    advances: list[Advance]
    users: int
    seeds: tuple[int, ...]
    horizon: int
    judges: tuple[str, ...]
    calls: dict[str, dict[str, int]]

    def advance(self, method: str, other: str, judge: str) -> Advance | None:
        """The lead of METHOD over OTHER, if it was measured."""
        wanted = (method, other, judge)
        return next((a for a in self.advances if (a.lead.method, a.lead.other, a.lead.judge) == wanted), None)


def read_online(config: OnlineReproduceConfig, path: Path) -> OnlineResults:
    """Results of what is stored in a run.

    Raises:
      RunError: something is missing or damaged; the message names the file.
    """
    judges = (config.online.judge.model, config.second.model)
    steps = read_steps(config, path, judges)
    found = leads(steps, BASELINES, n=config.resamples)
    corrected = {
        judge: iter(holm([lead.p_value for lead in found if lead.judge == judge])) for judge in dict.fromkeys(judges)
    }
    return OnlineResults(
        curves(steps, n=config.resamples), [Advance(lead, next(corrected[lead.judge])) for lead in found],
        len({s.user_id for s in steps}), config.seeds, config.rl.horizon, judges,
        {name: _calls(config, path, name) for name in config.methods if name in ADVANTAGES},
    )  # fmt: skip


def _calls(config: OnlineReproduceConfig, path: Path, method: str) -> dict[str, int]:
    total: dict[str, int] = {}
    # A run that several seeds share made its calls once.
    folders = [config.given(method, seed) or run_folder(path, method, seed) for seed in config.seeds]
    for folder in dict.fromkeys(folders):
        if not (folder / "costs.json").is_file():
            continue
        costs: Mapping[str, Mapping[str, Json]] = json.loads((folder / "costs.json").read_text(encoding="utf-8"))
        for role, entry in costs.items():
            total[role] = total.get(role, 0) + int(str(entry["calls"])) - int(str(entry["failed"]))
    return total
