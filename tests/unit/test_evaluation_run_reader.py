"""Reading a run directory: what may be missing, what may be broken, what is refused; controls and the headline."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pamdp.errors import DataError, RunError
from pamdp.evaluation.records import Control, Judgement, read_controls, write_controls
from pamdp.evaluation.report import headline, render_report, write_report
from pamdp.evaluation.run_reader import ReportData, load_report, reward_judge
from pamdp.evaluation.success import compare


def test_a_killed_run_may_end_its_log_in_half_a_line(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text(
        '{"step": 1, "stage": "clone", "nll": 2.0}\n{"step": 2, "stage": "clone", "nll": NaN}\n{"step": 3, "st'
    )
    data = load_report(tmp_path)
    assert data.metrics is not None and [m.values for m in data.metrics] == [{"nll": 2.0}, {}]
    assert data.torn and "incomplete" in render_report(data)
    log.write_text('{"step": 1, "st\n{"step": 2, "stage": "clone"}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl:1: Invalid JSON"):
        load_report(tmp_path)


def test_steps_are_put_in_order_and_one_that_a_resumed_run_repeats_counts_once(tmp_path: Path) -> None:
    rows = [{"step": s, "stage": "offline", "reward": r} for s, r in ((1, 0.1), (3, 0.4), (2, 0.2), (2, 0.3))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_report(tmp_path)
    assert data.metrics is not None and [m.values["reward"] for m in data.metrics] == [0.1, 0.3, 0.4]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run"):
        load_report(tmp_path / "none")
    with pytest.raises(RunError, match="not a run directory"):
        load_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [("fingerprint.json", "{", "fingerprint.json: Invalid JSON: .* at line 1"),
     ("fingerprint.json", "[]", "fingerprint.json: Input should be an object"),
     ("controls.json", '{"rows": [{"name": 1}]}', r"controls.json: rows.0.name: "),
     ("dialogues.json", "{}", "dialogues.json: Input should be a valid array"),
     ("metrics.jsonl", '{"stage": "clone"}\n', "metrics.jsonl:1: step: Field required"),
     ("metrics.jsonl", '\n{"stage": "clone", "step": 1.5}\n', "metrics.jsonl:2: step: Input should be a valid int")],
)  # fmt: skip
def test_wrong_files_are_named(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=says):
        load_report(tmp_path)


def test_the_report_says_who_graded(tmp_path: Path) -> None:
    """Beside what the run was computed from: the judges that grade need not be those that rewarded."""
    (tmp_path / "fingerprint.json").write_text('{"judges": [{"role": "reward", "name": "match"}]}')
    record = {
        "permuted": "runs/permuted",
        "judges": [{"role": "evaluation", "name": "likelihood", "weights": "abc123"}],
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(record))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "abc123" in page and "runs/permuted" in page and "judges.1.weights" in page


@pytest.mark.parametrize(
    ("values", "passed"), [([1, 1, 1, 1], True), ([1, -1, 1, -1], False), ([-1, -1, -1, -1], False)]
)
def test_when_a_control_passes(tmp_path: Path, values: list[float], passed: bool) -> None:
    made = Control.measure(values, "abcd", name="n", what="w", judge="j")
    assert made.passed is passed
    write_controls(tmp_path / "controls.json", [made])
    assert read_controls(tmp_path / "controls.json") == (made,)


def test_one_user_gives_no_interval_and_no_pass() -> None:
    made = Control.measure([1, 1], "aa", name="n", what="w", judge="j")
    assert made.low is None and not made.passed


def test_a_worse_method_is_called_worse() -> None:
    lost = [Judgement("PAMDP", "Vanilla", j, f"u{u}", "d", 0, 0, 0.0, 1.0, 0.0, "loss") for u in range(5) for j in "xy"]
    won = [Judgement("PAMDP", "BC", j, f"u{u}", "d", 0, 0, 1.0, 0.0, 0.0, "win") for u in range(5) for j in "x"]
    tied = [Judgement("PAMDP", "BC", "y", f"u{u}", "d", 0, 0, 0.0, 0.0, 1.0, "tie") for u in range(5)]
    said = headline(compare(lost + won + tied), ())
    assert said.startswith("PAMDP is worse than Vanilla under both judges, and preferred to BC under 1 of 2 judges.")


def test_what_was_compared_is_read_from_the_records() -> None:
    def at(method: str, turn: int, orders: bool = True) -> Judgement:
        seen = ("win", "win") if orders else None
        return Judgement(method, "Vanilla", "j", "u", "d", turn, 0, 1.0, 0.0, 0.0, "win", orders=seen)

    def page(*judgements: Judgement) -> str:
        return render_report(ReportData("run", judgements=judgements))

    same, other = page(at("a", 0), at("b", 0)), page(at("a", 0), at("b", 1), replace(at("b", 1), sample=1))
    assert "All comparisons are of the same turns. Each judge saw" in same
    assert "Not all comparisons are of the same turns" in other
    assert "both orders, and" not in page(at("a", 0, False), at("b", 0))
    facts = [re.sub(r"<[^>]+>", "", fact) for fact in re.findall(r"<div><b>.*</div>", same)]
    assert facts == ["1user", "1dialogue", "1turn", "1reply to each turn", "1judge", "2verdicts"]
    assert '<b>2</b><span class="small">turns</span>' in other
    assert '<b>1.5</b><span class="small">replies to each turn</span>' in other


def test_the_judge_that_rewarded_is_the_one_in_that_role() -> None:
    judges = [{"role": "simulator", "name": "a"}, {"role": "reward", "name": "b"}]
    assert reward_judge({"judges": judges}) == reward_judge({"judges": tuple(judges)}) == "b"
    assert reward_judge({"judges": judges[:1]}) is None and reward_judge({}) is None
