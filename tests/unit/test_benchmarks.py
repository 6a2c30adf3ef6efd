"""The benchmarks' own arithmetic: operations, ratios and tables, by hand. What they time is never asserted."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from benchmarks import gpu, gpu_replies, readings, serve
from benchmarks.arena import Duel, Options, summary
from benchmarks.measure import Arithmetic, Measured, Prepared, measure
from benchmarks.table import table
from pamdp.data.readings import Answers, ReadReply, ReadState
from pamdp.judges.base import Case, Verdict
from pamdp.types import Message
from tests.tools.tiny import make_tiny_backbone


def _measured(seconds: float, units: int, flop: float = 0.0) -> Measured:
    return Measured(seconds, 2 * seconds + units, units, 100.0, 20.0, flop, 4.0, 2.0, {})


def test_operations_by_hand() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    counter = Arithmetic(model)
    with torch.no_grad():
        model(torch.ones(2, 7, 3))
    forward = 2 * 14 * 3 * 5 + 2 * 14 * 5 * 2
    assert counter.flop == forward
    counter.flop = 0
    model(torch.ones(2, 7, 3))  # the first layer gives one gradient, to its weights; the second gives two
    assert counter.flop == 2 * (2 * 14 * 3 * 5) + 3 * (2 * 14 * 5 * 2)
    counter.flop = 0
    model.requires_grad_(False)
    model(torch.ones(2, 7, 3, requires_grad=True))
    assert counter.flop == 2 * forward


def test_only_the_work_is_measured() -> None:
    layer = nn.Linear(4, 4, bias=False)

    def prepare() -> Prepared:
        layer(torch.ones(1, 4))
        return Prepared(layer, lambda: {"sum": float(layer(torch.zeros(3, 4)).sum().detach())}, 3)

    found = measure(prepare)
    assert found.facts == {"sum": 0.0} and found.units == 3 and found.flop == 2 * (2 * 3 * 4 * 4)
    assert found.seconds > 0 and found.gemm > 0 and found.peak_mb >= 0 and found.loaded_mb > 0


def test_ratios_are_taken_within_a_repeat_and_for_each_piece_of_work() -> None:
    runs = [
        {"ours": _measured(1.0, 10, 2.0), "peer": _measured(2.0, 5)},
        {"ours": _measured(3.0, 10, 12.0), "peer": _measured(12.0, 5)},
        {"ours": _measured(2.0, 10, 4.0), "peer": _measured(3.0, 5)},
    ]
    found = summary("x", Options(repeats=3), runs, [Duel("ours", "peer", 3.5)])
    assert found["duels"] == [
        {
            "ours": "ours", "peer": "peer", "target": 3.5, "ratio": {"median": 4.0, "min": 3.0, "max": 8.0},
            # 9 and 12, 29 and 16, 11 and 14 seconds of processors for 5 and 10 pieces
            "cpu_ratio": {"median": 1.571, "min": 1.5, "max": 3.625},
        }
    ]  # fmt: skip
    contenders = found["contenders"]
    assert isinstance(contenders, dict)
    assert contenders["ours"]["seconds_per_unit"] == pytest.approx(0.2)
    # operations / seconds / rate: 2/1/4, 12/3/4 and 4/2/4
    assert contenders["ours"]["gemm_share"] == 0.5


def test_a_table_has_a_row_for_each_duel() -> None:
    runs = [{"ours": _measured(1.0, 10, 2.0), "peer": _measured(2.0, 5)}]
    text = table(summary("x", Options(repeats=1), runs, [Duel("ours", "peer", 3.5), Duel("ours", "peer")]))
    rows = [line for line in text.splitlines() if line.startswith("| ours")]
    assert rows[0] == "| ours | peer | 0.1 / 0.4 | 4 (4 to 4) | 1.5 | 3.5 | 20 / 20 | 0.08 / 0.00 |"
    assert len(rows) == 2 and "|  |" in rows[1]


def test_servers_are_compared_on_the_same_model_and_as_many_users() -> None:
    rates = {"pamdp": 9.0, "vanilla": 6.0, "transformers": 4.0}
    found: dict[str, dict[str, object]] = {name: {"8": {"replies_per_s": rate}} for name, rate in rates.items()}
    assert serve.ratios({**found, "transformers-cb": {"8": "failed: no"}}) == {"transformers": {"8": 1.5}}


def _read_state(id: str, prefer: str, **by: str) -> ReadState:
    replies = {letter: ReadReply(text=f"Words of {name}.", by=tuple(name.split("+"))) for letter, name in by.items()}
    said = Answers(reader="r", kind="person", prefer={"A-B": prefer}, grades={"A": {"sense": 2}})
    return ReadState(id=id, user_id=id, history=(Message("user", "Hm?"),), replies=replies, readings=(said,))


def test_readings_are_compared_by_method_and_pooled_over_seeds() -> None:
    """X wins once as seed 0 and loses as seed 1; Y says the same as X's seed 1, and is compared seed by seed."""
    states = [_read_state("u/1", "A", A="X", B="clone"), _read_state("v/1", "B", A="X, seed 1+Y, seed 1", B="clone")]
    found = readings.compared(states)
    assert found["X", "clone"] == [(1.0, "u/1")] and found["X, seed 1", "clone"] == [(-1.0, "v/1")]
    assert found["X, seed 1", "Y, seed 1"] == [(0.0, "v/1")]
    pooled = readings.pooled(found)
    assert sorted(pooled["X", "clone"]) == [(-1.0, "v/1"), (1.0, "u/1")] and pooled["X", "Y"] == [(0.0, "v/1")]
    assert readings.read_in(_read_state("u/1, test 2", "A", A="X", B="Y")) == "test 2"


def test_states_where_a_reply_is_the_shorter_one_can_be_had_alone() -> None:
    states = [_read_state("u/1", "A", A="X", B="Y")]
    a, b = (reply.text for reply in states[0].replies.values())
    assert readings.more_words("one two", "one") == 1 and readings.more_words(a, a) == 0
    found = [
        readings.compared(states, among=lambda one, other, own=own: (one, other) == own) for own in ((a, b), (b, a))
    ]
    assert found == [{("X", "Y"): [(1.0, "u/1")]}, {}]


def test_a_judge_says_r_w_of_what_was_read_and_how_often_it_agrees() -> None:
    """One that likes the longer name: of B it decides otherwise than the reader, of the tie nothing is counted."""

    class Longer:
        name = "longer"
        fingerprint: ClassVar[dict[str, str]] = {}

        def judge(self, cases: Sequence[Case], progress: object = None) -> list[Verdict]:
            return [Verdict(0.75, 0.25, 0.0) if len(c.a) > len(c.b) else Verdict(0.25, 0.75, 0.0) for c in cases]

    states = [_read_state(id, said, A="Xyz", B="Y") for id, said in (("u/1", "A"), ("v/1", "B"), ("w/1", "tie"))]
    theirs, ours = readings.compared(states), readings.compared(states, readings.decided_by(Longer()))
    (pair,) = ours
    sign = 1 if len(states[0].replies["A"].text) > len(states[0].replies["B"].text) else -1
    assert ours[pair] == [(sign * 0.5, "u/1"), (sign * 0.5, "v/1"), (sign * 0.5, "w/1")]
    assert readings.agreed(theirs, ours)[pair] == [(float(sign > 0), "u/1"), (float(sign < 0), "v/1")]


@pytest.mark.embedded
def test_the_benchmark_of_a_card_is_rehearsed(tmp_path: Path) -> None:
    """Every part runs in small, but for those that need a card or what is not installed."""
    found = gpu.main(["--rehearse", "--out", str(tmp_path)])
    failed = {name for name, facts in found.items() if "failed" in facts}
    may_fail = {"7B rollouts, generate_batch", "7B rollouts, vLLM"} | (set() if find_spec("trl") else {"7B LoRA, TRL"})
    assert len(found) == 20 and failed <= may_fail, found
    assert found["embedded replies, float32"].items() >= {"equal": 2, "tie": 0, "unequal": 0}.items()
    assert (tmp_path / "gpu.json").is_file() and len(gpu.ratios_of(found)) >= 7


def test_a_part_that_fails_or_takes_too_long_costs_nothing_but_itself(tmp_path: Path) -> None:
    parts = gpu.Parts(tmp_path, torch.device("cpu"), 60.0)
    parts.run("7B decode, ours", 30, lambda: {"tokens/s": 3.0})
    parts.run("broken", 30, lambda: {"x": 1 / 0})
    parts.run("7B decode, bare", 30, lambda: {"tokens/s": 4.0})
    parts.run("late", 0.5, lambda: {})
    assert "ZeroDivisionError" in str(parts.found["broken"]["failed"]) and "failed" in parts.found["late"]
    assert [(g.ours, ratio) for g, ratio in gpu.ratios_of(parts.found)] == [("7B decode, ours", 0.75)]
    assert "| 7B decode, ours | 7B decode, bare | 0.75 | 0.6 |" in gpu.table(parts.found)


@torch.no_grad()
def test_replies_that_differ_are_told_by_the_two_best_logits() -> None:
    backbone = make_tiny_backbone()
    history = backbone.chat.reply("Hello there, how are you?")
    mine, theirs = [[5, 6], [5, 6], [5]], [[5, 6], [5, 7], [5, 6]]
    wide = gpu_replies.compared(backbone, [history] * 3, mine, theirs)
    assert wide == {"equal": 1, "tie": 0, "unequal": 2}
    backbone.model.lm_head.weight.data.mul_(1e-3)
    assert gpu_replies.compared(backbone, [history] * 3, mine, theirs) == {"equal": 1, "tie": 2, "unequal": 0}
