"""Records, rates, agreement and tables, by hand."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from pamdp.errors import DataError
from pamdp.evaluation import tables
from pamdp.evaluation.agreement import between_judges, between_orders, cohens_kappa
from pamdp.evaluation.records import Judgement, read_judgements, write_judgements
from pamdp.evaluation.significance import Estimate
from pamdp.evaluation.success import by_turn, compare, differences
from pamdp.judges.base import Outcome, Verdict

PROBABILITIES = {"win": (0.8, 0.1, 0.1), "loss": (0.1, 0.8, 0.1), "tie": (0.1, 0.1, 0.8)}


def judged(
    outcomes: Sequence[Outcome | None],
    *,
    method: str = "PAMDP",
    judge: str = "one",
    users: int = 2,
    turn: int | None = None,
) -> list[Judgement]:
    """Outcomes given to users in turn; None is masked."""
    made = list[Judgement]()
    for i, outcome in enumerate(outcomes):
        user, round_ = f"u{i % users}", i // users
        where = (user, f"d{i % users}", round_, 0) if turn is None else (user, f"d{i % users}", turn, round_)
        p = PROBABILITIES[outcome] if outcome else (0.0, 0.0, 0.0)
        made.append(Judgement(method, "Vanilla", judge, *where, *p, outcome or "tie", masked=outcome is None))
    return made


def test_row_by_hand() -> None:
    (row,) = compare(judged(["win", "win", "win", "loss", "tie", None]))
    assert (row.wins, row.losses, row.ties, row.masked, row.n) == (3, 1, 1, 1, 5)
    assert row.rate.value == pytest.approx(2 / 5)
    assert row.soft.value == pytest.approx(2 * 0.7 / 5)
    assert (row.rate.n, row.rate.clusters) == (5, 2)


def test_masked_is_no_tie_and_all_masked_is_no_zero() -> None:
    tied = compare(judged(["win", "tie"]))[0].rate.value
    assert (compare(judged(["win", None]))[0].rate.value, tied) == (1, 0.5)
    (row,) = compare(judged([None, None]))
    assert math.isnan(row.rate.value) and math.isnan(row.p_value) and row.masked == 2 and row.rate.sign == 0


def test_groups_and_kinds_are_kept_apart() -> None:
    records = judged(["win"]) + judged(["loss"], judge="two") + judged(["loss"], method="BC")
    control = [replace(j, kind="mean action") for j in judged(["loss", "loss"])]
    rows = compare(records + control)
    assert [(r.method, r.judge, r.rate.value) for r in rows] == [
        ("PAMDP", "one", 1),
        ("PAMDP", "two", -1),
        ("BC", "one", -1),
    ]
    assert compare(control) == compare([]) == []


def test_one_comparison_twice_is_refused() -> None:
    with pytest.raises(DataError, match="stands twice"):
        compare(judged(["win"]) * 2)


def test_difference_is_paired_by_state() -> None:
    ours = judged(["win", "win", "tie", "loss", None, "win"])
    theirs = judged(["loss", "win", "loss", "loss", "win"], method="BC")
    (found,) = differences([*theirs, *ours])
    # States 0..3 are shared: +2, 0, +1, 0.
    assert (found.method, found.other, found.rate.n) == ("PAMDP", "BC", 4)
    assert found.rate.value == pytest.approx(3 / 4)
    same = differences([*judged(["win", "loss", "tie"]), *judged(["win", "loss", "tie"], method="BC")])[0]
    assert (same.rate.value, same.rate.low, same.rate.high, same.p_value) == (0, 0, 0, 1)


def test_samples_of_a_state_are_averaged_before_pairing() -> None:
    ours = judged(["win", "win", "loss", "loss"], turn=0)  # two users, two samples each: +1 and −1
    theirs = judged(["win", "loss"], method="BC", turn=0)
    (found,) = differences([*theirs, *ours])
    assert (found.rate.value, found.rate.n) == (0, 2)


def test_by_turn() -> None:
    found = by_turn(judged(["win", "tie", "loss", "loss", None, None]), "PAMDP", "Vanilla", "one")
    assert {turn: e.value for turn, e in found.items()} == {0: 0.5, 1: -1}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["win", "loss", "tie"]), min_size=1, max_size=20))
def test_rate_is_in_range_and_antisymmetric(outcomes: list[Outcome]) -> None:
    mirror: dict[Outcome, Outcome] = {"win": "loss", "loss": "win", "tie": "tie"}
    (row,), (other,) = compare(judged(outcomes), n=50), compare(judged([mirror[o] for o in outcomes]), n=50)
    assert -1 <= row.rate.value <= 1
    assert other.rate.value == -row.rate.value


# ---- records


def test_both_orders_are_averaged_from_the_methods_side() -> None:
    made = Judgement.of(
        Verdict(0.9, 0.1), Verdict(0.6, 0.2, 0.2), method="a", baseline="b", judge="j", state=("u", "d", 3), sample=1
    )
    assert (made.p_win, made.p_loss, made.p_tie) == pytest.approx((0.55, 0.35, 0.1))
    assert (made.outcome, made.orders, made.state) == ("win", ("win", "loss"), ("u", "d", 3))
    assert made.soft == pytest.approx(0.2)


def test_a_position_bias_alone_is_a_tie() -> None:
    always_first = Verdict(1.0, 0.0)
    made = Judgement.of(always_first, always_first, method="a", baseline="b", judge="j", state=("u", "d", 0))
    assert (made.outcome, made.score, made.orders) == ("tie", 0, ("win", "loss"))


def test_a_failed_order_masks() -> None:
    made = Judgement.of(Verdict(1, 0), None, method="a", baseline="b", judge="j", state=("u", "d", 0))
    assert made.masked and compare([made])[0].n == 0


def test_users_are_clusters_and_a_nameless_user_is_a_dialogue() -> None:
    (record,) = judged(["win"])
    assert (record.cluster, replace(record, user_id="").cluster) == ("u0", "d0")


def test_write_and_read_again(tmp_path: Path) -> None:
    records = [
        *judged(["win", None, "tie"]),
        replace(judged(["win"])[0], dialogue_id='é\u2028 "x"', orders=("win", "tie")),
    ]
    path = tmp_path / "run" / "judgements.jsonl"
    write_judgements(path, records)
    assert read_judgements(path) == records
    before = path.read_bytes()
    write_judgements(path, read_judgements(path))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["judgements.jsonl"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "judgements.jsonl"
    write_judgements(path, judged(["win"]))
    with pytest.raises(DataError):
        write_judgements(path, judged(["loss"]) * 2)
    assert read_judgements(path) == judged(["win"])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"method": "a"', "2: Invalid JSON"),
        ("[]", "2: Input should be an object"),
        ('{"method": "a"}', "2: baseline: Field required"),
        ("GOOD", "stands twice"),
        ('{"p_win": 0.9', "2: "),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "judgements.jsonl"
    write_judgements(path, judged(["win"]))
    path.write_text(path.read_text() + line.replace("GOOD", path.read_text()) + "\n")
    with pytest.raises(DataError, match=says):
        read_judgements(path)


@pytest.mark.parametrize(
    "change",
    [{"p_win": 0.5}, {"turn": -1}, {"outcome": "won"}, {"extra": 1}, {"turn": "3"}, {"p_win": -0.1, "p_tie": 1.0}],
)
def test_a_wrong_field_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "judgements.jsonl"
    write_judgements(path, judged(["win"]))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=r"judgements.jsonl:1: "):
        read_judgements(path)


def test_missing_and_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_judgements(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(DataError, match="not UTF-8 at byte 7"):
        read_judgements(tmp_path / "latin.jsonl")


# ---- agreement


def test_kappa_by_hand() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o = .7, p_e = .5, κ = .4 (the textbook's table).
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohens_kappa(first, second).value == pytest.approx(0.4)
    assert cohens_kappa("abc", "abc").value == pytest.approx(1)
    assert cohens_kappa("ab", "ba").value == pytest.approx(-1)
    assert math.isnan(cohens_kappa("aa", "aa").value)
    with pytest.raises(DataError):
        cohens_kappa("a", "ab")


def test_judges_are_compared_on_what_both_decided() -> None:
    one = judged(["win", "loss", "tie", "win", None])
    two = judged(["win", "loss", "win", None, "win"], judge="two")
    (found,) = between_judges(one + two)
    assert (found.first, found.second, found.n) == ("one", "two", 3)
    assert found.same == pytest.approx(2 / 3)
    assert between_judges(one) == []


def test_orders_and_position_bias() -> None:
    records = judged(["win"] * 4)
    orders: list[tuple[Outcome, Outcome]] = [("win", "loss"), ("win", "win"), ("loss", "loss"), ("tie", "tie")]
    (found,) = between_orders([replace(j, orders=o) for j, o in zip(records, orders, strict=True)])
    assert (found.n, found.same) == (4, 0.75)
    # Shown first and preferred: 2 of the first record, 1 of the second, 1 of the third; six verdicts were decided.
    assert found.first_shown == pytest.approx(4 / 6)
    assert between_orders(records) == []


# ---- tables


def test_spelling() -> None:
    assert [tables.signed(x) for x in (0.314, -0.02, 0.0, -0.001, math.nan)] == [
        "+0.31",
        "−0.02",
        "0.00",
        "0.00",
        "n/a",
    ]
    assert [tables.p_text(p) for p in (0.0306, 0.0001, math.nan)] == ["0.031", "< 0.001", "n/a"]


def test_every_format_says_the_same() -> None:
    rows = compare(
        judged(["win", "win", "win", "loss", "tie", None], judge="a_b [x] & $c|d") + judged([None], method="BC")
    )
    parsed = tables.flat(tables.success_table(rows).records)
    assert parsed[0]["r_w"] == pytest.approx(0.4) and parsed[1]["r_w"] is None and parsed[0]["users"] == 2
    made = tables.success_table(rows)
    read = list(csv.DictReader(io.StringIO(tables.records_csv(made.records))))
    assert float(read[0]["r_w_low"]) == parsed[0]["r_w_low"] and read[1]["r_w"] == ""
    low, high = (tables.signed(parsed[0][key], 3) for key in ("r_w_low", "r_w_high"))
    page = made.markdown()
    assert f"+0.400 [{low}, {high}] |" in page and r"$c\|d" in page and page.count("n/a") == 3
    assert len({len(line.replace(r"\|", "").split("|")) for line in page.splitlines()}) == 1
    latex = made.latex()
    assert r"a\_b [x] \& \$c|d" in latex and "$r_w$" in latex and latex.count(r"\\") == 3 and "−" not in latex
    assert r"\begin{tabular}{lllrrrrrrr}" in latex and r"\toprule" in latex
    for width in (80, 200):
        console = Console(width=width, file=io.StringIO(), record=True)
        console.print(tables.to_table(rows))
        shown = console.export_text()
        assert "+0.400" in shown and "n/a" in shown and "…" not in shown
    assert "a_b [x] & $c|d" in shown


def test_a_value_is_written_as_its_kind_is() -> None:
    low, none = Estimate(-0.5, -0.75, 0.0, 4, 2), Estimate(1.0, math.nan, math.nan, 1, 1)
    assert [tables.written(x) for x in (True, 3, 0.25, -0.25, low, none, "a", (1.0, math.nan), {"a": 0.5})] == [
        "yes", "3", "0.250", "−0.250", "−0.500 [−0.750, 0.000]", "1.000", "a", "1.000 n/a", "a 0.500",
    ]  # fmt: skip
    assert tables.interval(none) == "n/a" and tables.measured(low, 2) == "−0.50 [−0.75, 0.00]"


def test_records_that_differ_share_one_table() -> None:
    e = Estimate(0.5, 0.25, 0.75, 4, 2)
    records = [{"who": "a", "hidden": 1, "x (95 %)": e, "by_seed": {0: 1.0}}, {"who": "b *`<c>", "why": "no data"}]
    made = tables.TidyTable(records, {"hidden": None, "x (95 %)": tables.measured})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in made.markdown().splitlines()]
    assert cells[0] == ["who", "x (95 %)", "by seed", "why"]
    assert cells[2:] == [["a", "+0.500 [+0.250, +0.750]", "0 1.000", ""], [r"b \*\`\<c>", "", "", "no data"]]
    assert r"x (95 \%)" in made.latex() and "$<$c>" in made.latex()
    assert tables.records_csv(records) == "who,hidden,x (95 %),low,high,why\na,1,0.5,0.25,0.75,\nb *`<c>,,,,,no data\n"
    assert tables.flat([{"x": e, "y": e}])[0].keys() == {"x", "x_low", "x_high", "y", "y_low", "y_high"}
    titles = [str(grid.title) for grid in tables.TidyTable(records).terminal("t [0]", ("who",))]
    assert titles == ["t [0]\na", "t [0]\nb *`<c>"]
