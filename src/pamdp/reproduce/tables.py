"""What each table and figure of the paper compares, and the figures that it prints.

Owns rows and pairs; `paper.csv` beside it has the paper's wins, losses and r_w under its own backbones and judges, and
ties as what is left of its test set. Its counts for Ours in Table 6 are those of Table 5 under DeepSeek-R1, which is
therefore taken to be its judge there. Knows nothing of our own results.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import Any, Literal

import pandas as pd

from pamdp.errors import ConfigError

Name = Literal["table2", "table3", "table5", "table6", "fig3", "fig4", "simulator"]
DataSet = Literal["ALOE", "PrefEval"]
VANILLA = "Vanilla"

TEST_TURNS: dict[DataSet, int] = {"ALOE": 3834, "PrefEval": 98}
"""Verdicts of the paper: wins, losses and ties of one row."""
RETURNS: dict[str, float] = {"UAAC": 1.5784, "DCRL": 1.4305, "PAMDP": 1.7389}
"""Final returns of Table 3 that the paper states (section 4.2); UAAC and DCRL by their distance from its own method."""
GAINS: dict[str, float] = {"PAMDP": 0.6173}
"""Gain of the last step that the paper states for Figure 4."""
ALIGNED, WON = 20884 / 27480, 0.4099
"""Appendix F: turns whose simulated message aligns with the persona, and the win rate of simulated messages."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table or figure.

    Attributes:
      rows: methods that are compared with Vanilla, in order; online the settings name them.
      pairs: further comparisons, (method, baseline).
      paper: the table of the paper whose figures stand beside ours.
      shares: draw wins, ties and losses as shares in place of rates.
    """

    name: Name
    title: str
    rows: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    columns: tuple[DataSet, ...] = ()
    paper: str = ""
    shares: bool = False
    online: bool = False

    def methods(self, more: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Vanilla, the rows, and MORE rows."""
        return tuple(dict.fromkeys((VANILLA, *self.rows, *more)))

    def comparisons(self, more: tuple[str, ...] = ()) -> tuple[tuple[str, str], ...]:
        """Every row against Vanilla, then the further pairs."""
        return (*((name, VANILLA) for name in self.methods(more) if name != VANILLA), *self.pairs)


def table(name: str) -> Table:
    """The table of that name; a ConfigError where there is none."""
    if name not in TABLES:
        raise ConfigError(f"no table {name!r}; there are: {', '.join(TABLES)}")
    return TABLES[name]


def printed(table: Table, *key: str) -> list[dict[str, Any]]:
    """What the paper prints for a column, a method and a baseline: counts and `rate`, each with `model` and `judge`."""
    return [p for p in _paper() if (p["table"], p["column"], p["method"], p["baseline"]) == (table.paper, *key)]


@cache
def _paper() -> list[dict[str, Any]]:
    with as_file(files("pamdp.reproduce") / "paper.csv") as path:
        return [
            {str(key): x for key, x in row.items()}
            for row in pd.read_csv(path, float_precision="round_trip").to_dict("records")
        ]


_TABLE2 = ("Prompt", "PEFT", "FPFT", "CoT", "BC", "PAMDP")
_BOTH: tuple[DataSet, ...] = ("ALOE", "PrefEval")
TABLES: dict[str, Table] = {
    made.name: made
    for made in (
        Table("table2", "Table 2: success rates against Vanilla", _TABLE2, (), _BOTH, "table2"),
        Table("table3", "Table 3: return of dialogues with simulated users", online=True),
        Table(
            "table5", "Table 5: against preference and reward optimisation", ("DPO", "GRPO", "PAMDP"),
            (("PAMDP", "DPO"), ("PAMDP", "GRPO")), ("ALOE",), "table5",
        ),
        Table(
            "table6", "Table 6: what cloning, reinforcement and the profile add",
            ("BC", "RL-base", "UAAC", "DCRL", "PAMDP", "ODC"),
            (("RL-base", "BC"), ("PAMDP", "BC"), ("PAMDP", "RL-base"), ("ODC", "RL-base"), ("ODC", "PAMDP")),
            ("ALOE",), "table6",
        ),
        Table("fig3", "Figure 3: wins, ties and losses against Vanilla", _TABLE2, (), _BOTH, "table2", shares=True),
        Table("fig4", "Figure 4: gain of each step", online=True),
        Table("simulator", "Appendix F: how well simulated users play their part", online=True),
    )
}  # fmt: skip
