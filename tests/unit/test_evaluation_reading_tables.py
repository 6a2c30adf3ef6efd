"""What readings say, by hand: rates, grades, agreement of readers and of model judges, and their tables."""

from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console

from pamdp.evaluation.agreement import Agreement, cohens_kappa
from pamdp.evaluation.reading_tables import (
    between_readers,
    grades,
    judges_with_readers,
    reading_tables,
    success,
    terminal,
    to_json,
)
from pamdp.evaluation.readings import POOLED, Readings
from pamdp.evaluation.records import Judgement
from pamdp.evaluation.significance import Estimate, cluster_bootstrap
from pamdp.evaluation.tables import TidyTable
from tests.tools.reading import PV, Sheet, judged, row


def test_success_rates_by_hand(found: Readings) -> None:
    rows = success(found)
    ann, bob, both = (
        row(rows, judge=judge, method=PV[0], baseline=PV[1]) for judge in ("reader ann", "reader bob", POOLED)
    )
    assert [(r["wins"], r["losses"], r["ties"], r["masked"]) for r in (ann, bob, both)] == [
        (2, 1, 1, 0),
        (2, 2, 0, 0),
        (1, 1, 2, 0),
    ]
    assert [r["r_w"].value for r in (ann, bob, both)] == [1 / 4, 0, 0]
    # Together: a win, a win against a loss, a loss, a win against a tie.
    assert both["soft"].value == pytest.approx((1 + 0 - 1 + 0.5) / 4)
    users = [f"user-{i}" for i in range(4)]
    assert ann["r_w"] == cluster_bootstrap([1, 1, -1, 0], users)
    # Nobody was asked to compare these; bob gave no answer to them, nor did ann.
    assert row(rows, judge=POOLED, method="BC", baseline="Vanilla")["masked"] == 4


def test_grades_by_hand(found: Readings) -> None:
    rows = grades(found, "form")
    words = ("garbled", "blemished", "well formed", "mean")
    ann, bob, both = (row(rows, judge=judge, method="PAMDP") for judge in ("reader ann", "reader bob", POOLED))
    assert [ann[word].value for word in words] == [0.25, 0.25, 0.5, 1.25]
    assert [bob[word].value for word in words] == pytest.approx([1 / 3, 0, 2 / 3, 4 / 3])
    assert [both[word].value for word in words] == pytest.approx([0.25, 0.125, 0.625, 1.375])
    assert [(r["replies"], r["missing"]) for r in (ann, bob, both)] == [(4, 0), (3, 1), (4, 0)]
    assert both["mean"] == cluster_bootstrap([0, 1.5, 2, 2], [f"user-{i}" for i in range(4)])
    nothing = row(grades(found, "sense"), judge=POOLED, method="BC")
    assert nothing["missing"] == 4 and math.isnan(nothing["mean"].value)


def test_agreement_of_readers_by_hand(found: Readings) -> None:
    rows = between_readers(found)
    # Decided by both: ww, wl, ll. κ = (2/3 − 4/9) / (1 − 4/9).
    decided = row(rows, on="decided pairs")
    assert (decided["n"], decided["same"]) == (3, pytest.approx(2 / 3))
    assert decided["kappa"].value == pytest.approx(0.4)
    # With tw: κ = (2/4 − 3/8) / (1 − 3/8).
    ties = row(rows, on="pairs with ties")
    assert (ties["n"], ties["same"], ties["kappa"].value) == (4, 0.5, pytest.approx(0.2))
    # 00, 12, 22: κ = (2/3 − 1/3) / (1 − 1/3).
    form = row(rows, on="form")
    assert (form["n"], form["kappa"].value, form["kappa"].clusters) == (3, pytest.approx(0.5), 3)
    assert [r["on"] for r in rows] == ["decided pairs", "pairs with ties", "form"]


def test_agreement_of_judges_with_readers_by_hand(found: Readings) -> None:
    rows = judges_with_readers(found, judged(*PV, 0.9, 0.9, 0.6, 0.5))
    assert [(r["judge"], r["reader"], r["pairs"], r["right"].value) for r in rows] == [
        ("match", "reader ann", 3, pytest.approx(2 / 3)),
        ("match", "reader bob", 4, 1.5 / 4),  # even counts half
        ("match", POOLED, 2, 0.5),
    ]
    assert rows[0]["right"] == cluster_bootstrap([1, 1, 0], ["user-0", "user-1", "user-2"])
    turned = judges_with_readers(found, judged("Vanilla", "PAMDP", 0.1, 0.1, 0.4, 0.5))
    assert [r["right"] for r in turned] == [r["right"] for r in rows]


def test_a_judge_counts_only_on_what_was_read(found: Readings) -> None:
    others = judged(*PV, 0.9, judge="other", sample=1) + judged("Gamma", "Vanilla", 0.9, judge="third")
    rows = judges_with_readers(found, others)
    assert [(r["judge"], r["pairs"]) for r in rows] == [("third", 0)] * 3 and math.isnan(rows[0]["right"].value)


def test_agreement_on_answers_of_any_kind() -> None:
    pairs = [("0", "0"), ("1", "2"), ("2", "2")]
    same = Agreement.of("a", "b", pairs, ["x", "y", "z"])
    assert same.kappa.value == cohens_kappa(*zip(*pairs, strict=True)).value == pytest.approx(0.5)


def shown_of(found: Readings, *judgements: Judgement) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(*terminal(found, reading_tables(found, judgements)))
    return console.export_text()


def test_every_table_says_who_read(found: Readings) -> None:
    assert "people (ann)" in found.read_by and "language models (bob)" in found.read_by
    judgements = judged(*PV, 0.9, 0.9, 0.6, 0.5)
    tables = reading_tables(found, judgements)
    assert list(tables) == ["success", "form", "sense", "readers", "judges"]
    text = shown_of(found, *judgements)
    assert " ".join(text.split()).count("language models (bob)") == 5 and "…" not in text
    body = json.loads(json.dumps(to_json(found, tables), allow_nan=False))
    assert "language models (bob)" in body["read_by"] and body["kinds"] == {"ann": "person", "bob": "model"}
    assert row(body["success"], judge="reader ann", method=PV[0], baseline=PV[1])["r_w"] == 0.25
    decided = row(body["readers"], on="decided pairs")
    assert decided["kappa"] == pytest.approx(0.4) and decided.keys() >= {"low", "high"}
    assert row(body["sense"], judge=POOLED, method="BC")["mean"] is None


def test_cells_by_hand(found: Readings, sheet: Sheet) -> None:
    def cells(table: TidyTable, line: int) -> list[str]:
        return [cell.strip() for cell in table.markdown().split("\n")[line].split("|")[1:-1]]

    tables = reading_tables(found)
    assert cells(tables["form"], 0)[:4] == ["judge", "method", "replies", "missing"]
    assert cells(tables["success"], 2)[:7] == ["PAMDP", "Vanilla", "reader ann", "2", "1", "1", "0"]
    assert cells(tables["success"], 2)[7].startswith("+0.25 [") and "comparisons" not in cells(tables["success"], 0)
    assert cells(tables["form"], 2)[4].startswith("0.25 [")
    assert cells(tables["readers"], 0)[-1] == "kappa" and cells(tables["readers"], 2)[-1].startswith("+0.40")
    assert cells(tables["readers"], 2)[4] == "0.667"
    assert isinstance(tables["readers"].records[0]["kappa"], Estimate)
    every = {f"talk-{i}": {"grades": dict.fromkeys(("PAMDP", "BC", "Vanilla"), (2, 2))} for i in range(4)}
    assert "missing" not in cells(reading_tables(sheet.load(sheet.answer("eve", every)))["form"], 0)
