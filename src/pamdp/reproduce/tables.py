"""What each table and figure of the paper compares, and the figures that it prints.

Owns rows, pairs and the paper's numbers (Tables 2, 5, 6; Figure 3 shows Table 2). Knows nothing of our own results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pamdp.errors import ConfigError

Name = Literal["table2", "table5", "table6", "fig3"]
Column = Literal["ALOE", "PrefEval"]
VANILLA = "Vanilla"

TEST_TURNS: dict[Column, int] = {"ALOE": 3834, "PrefEval": 98}
"""Verdicts of the paper: wins, losses and ties of one row."""


@dataclass(frozen=True, slots=True)
class Printed:
    """One figure of the paper: counts and r_w of a method against a baseline, with its backbone and judge."""

    column: Column
    model: str
    judge: str
    method: str
    baseline: str
    wins: int
    losses: int
    rate: float

    @property
    def ties(self) -> int:
        """What is left of the test set."""
        return max(TEST_TURNS[self.column] - self.wins - self.losses, 0)


@dataclass(frozen=True, slots=True)
class Table:
    """A table or figure.

    Attributes:
      rows: methods that are compared with Vanilla, in order.
      pairs: further comparisons, (method, baseline).
      columns: data sets.
      printed: the paper's figures.
      shares: draw wins, ties and losses as shares in place of rates.
    """

    name: Name
    title: str
    rows: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]
    printed: tuple[Printed, ...]
    shares: bool = False

    def methods(self, more: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Vanilla, the rows, and MORE rows."""
        return tuple(dict.fromkeys((VANILLA, *self.rows, *more)))

    def comparisons(self, more: tuple[str, ...] = ()) -> tuple[tuple[str, str], ...]:
        """Every row against Vanilla, then the further pairs."""
        return (*((name, VANILLA) for name in self.methods(more) if name != VANILLA), *self.pairs)


def table(name: str) -> Table:
    """The table of that name.

    Raises:
      ConfigError: there is none.
    """
    if name not in TABLES:
        raise ConfigError(f"no table {name!r}; there are: {', '.join(TABLES)}")
    return TABLES[name]


QWEN, LLAMA, JUDGE = "Qwen2.5-7B", "Llama3-8B", "Qwen2.5-72B"
_TABLE2: dict[str, tuple[tuple[int, int, float] | None, ...]] = {
    "Prompt": ((1906, 1727, 0.0467), (54, 43, 0.1122), (1981, 1645, 0.0877), (48, 35, 0.1326)),
    "PEFT": (None, (51, 42, 0.0918), None, (58, 39, 0.1939)),
    "FPFT": ((2005, 1716, 0.0755), (50, 40, 0.1020), (2087, 1726, 0.0942), (54, 40, 0.1429)),
    "CoT": ((2041, 1696, 0.0901), (51, 38, 0.1326), (2119, 1708, 0.1073), (56, 41, 0.1531)),
    "BC": ((2069, 1759, 0.0809), (62, 33, 0.296), (2281, 1536, 0.1945), (64, 32, 0.3265)),
    "PAMDP": ((2115, 1714, 0.1046), (70, 27, 0.439), (2422, 1399, 0.2671), (67, 30, 0.3776)),
}
_PLACES: tuple[tuple[str, Column], ...] = ((QWEN, "ALOE"), (QWEN, "PrefEval"), (LLAMA, "ALOE"), (LLAMA, "PrefEval"))
_QWEN3, _DEEPSEEK = "Qwen3-30B-A3B", "DeepSeek-R1-0528-AWQ"
# (method, baseline): under Qwen3-30B-A3B, under DeepSeek-R1-0528-AWQ
_TABLE5: dict[tuple[str, str], tuple[tuple[int, int, float], tuple[int, int, float]]] = {
    ("DPO", VANILLA): ((2732, 1091, 0.4284), (2778, 1037, 0.4546)),
    ("GRPO", VANILLA): ((2697, 1128, 0.4097), (2711, 1099, 0.4208)),
    ("PAMDP", VANILLA): ((2743, 1076, 0.4352), (2802, 1019, 0.4655)),
    ("PAMDP", "DPO"): ((1927, 1881, 0.0120), (1931, 1896, 0.0091)),
    ("PAMDP", "GRPO"): ((1950, 1867, 0.0217), (1988, 1832, 0.0407)),
}
# Its counts for Ours are those of Table 5 under DeepSeek-R1, which is therefore taken to be its judge.
_TABLE6: dict[tuple[str, str], tuple[int, int, float]] = {
    ("BC", VANILLA): (2676, 1125, 0.4050),
    ("RL-base", VANILLA): (2732, 1085, 0.4300),
    ("PAMDP", VANILLA): (2802, 1019, 0.4655),
    ("RL-base", "BC"): (1963, 1841, 0.0318),
    ("PAMDP", "BC"): (1999, 1800, 0.0519),
    ("PAMDP", "RL-base"): (1953, 1834, 0.0311),
}

_PRINTED2 = tuple(
    Printed(column, model, JUDGE, method, VANILLA, *counts)
    for method, cells in _TABLE2.items()
    for (model, column), counts in zip(_PLACES, cells, strict=True)
    if counts is not None
)
_PRINTED5 = tuple(
    Printed("ALOE", "unnamed", judge, method, baseline, *counts)
    for (method, baseline), both in _TABLE5.items()
    for judge, counts in zip((_QWEN3, _DEEPSEEK), both, strict=True)
)
_PRINTED6 = tuple(
    Printed("ALOE", "unnamed", _DEEPSEEK, method, baseline, *counts) for (method, baseline), counts in _TABLE6.items()
)

TABLES: dict[str, Table] = {
    "table2": Table(
        "table2", "Table 2: success rates against Vanilla", tuple(_TABLE2), (), ("ALOE", "PrefEval"), _PRINTED2
    ),
    "table5": Table(
        "table5", "Table 5: against preference and reward optimisation", ("DPO", "GRPO", "PAMDP"),
        (("PAMDP", "DPO"), ("PAMDP", "GRPO")), ("ALOE",), _PRINTED5,
    ),
    "table6": Table(
        "table6", "Table 6: what cloning, reinforcement and the profile add",
        ("BC", "RL-base", "UAAC", "DCRL", "PAMDP", "ODC"),
        (("RL-base", "BC"), ("PAMDP", "BC"), ("PAMDP", "RL-base"), ("ODC", "RL-base"), ("ODC", "PAMDP")),
        ("ALOE",), _PRINTED6,
    ),
    "fig3": Table(
        "fig3", "Figure 3: wins, ties and losses against Vanilla", tuple(_TABLE2), (), ("ALOE", "PrefEval"), _PRINTED2,
        shares=True,
    ),
}  # fmt: skip
