"""What counts as significant, what a page is as files, and what is done by which process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from pamdp.evaluation.significance import Estimate
from pamdp.evaluation.tables import TidyTable
from pamdp.reproduce.page import COMPARED, Page, about, corrected, findings
from pamdp.reproduce.tables import TABLES
from pamdp.reproduce.work import Piece, do_missing


def _record(method: str, low: float, high: float, p: float, judge: str = "one") -> dict[str, object]:
    return {
        "method": method,
        "other": "BC",
        "judge": judge,
        "p": p,
        "difference": Estimate((low + high) / 2, low, high, 9, 3),
    }


def test_interval_and_corrected_p_value_must_both_say_so() -> None:
    found = corrected(
        [
            _record("A", 0.1, 0.3, 0.01),
            _record("B", 0.1, 0.3, 0.03),
            _record("C", -0.1, 0.3, 0.001),
            _record("D", -0.3, -0.1, 0.04, judge="two"),  # alone under its judge
        ],
        "difference",
    )
    assert [r["p_holm"] for r in found] == pytest.approx([0.02, 0.03, 0.003, 0.04])
    assert [r["significant"] for r in found] == [True, True, False, True]
    tighter = corrected([_record("A", 0.1, 0.3, 0.03), _record("B", 0.1, 0.3, 0.04)], "difference")
    assert [r["significant"] for r in tighter] == [False, False]
    said = findings((found, "difference", "is above {other}", "is below {other}"))
    assert said == [
        "A is above BC under one: +0.200 [+0.100, +0.300].",
        "B is above BC under one: +0.200 [+0.100, +0.300].",
        "D is below BC under two: −0.200 [−0.300, −0.100].",
        "No other difference is significant (1 of 4 comparisons).",
    ]
    assert findings((tighter, "difference", "", "")) == ["No difference is significant (2 of 2 comparisons)."]


def test_few_seeds_are_said() -> None:
    assert len(about((0, 1, 2), "j")) == 1 and "Only 2 seed(s)" in about((0, 1), "j")[1]


def test_a_page_is_files_of_the_same_records(tmp_path: Path) -> None:
    rows = corrected([_record("A|x", 0.1, 0.3, 0.0001)], "difference")
    main = TidyTable(rows, COMPARED)
    page = Page(
        TABLES["table6"],
        notes=["Note."],
        main=main,
        findings=["Said."],
        tables={"more_of_it": TidyTable([{"a": 1}]), "nothing": TidyTable([])},
        facts={"seeds": (0, 1)},
        figures={"-one": "<svg/>"},
        shown=main.terminal("t"),
    )
    files = page.write(tmp_path / "out")
    assert [file.name for file in files] == ["table6.csv", "table6.md", "table6.tex", "table6.json", "table6-one.svg"]
    text = {file.suffix: file.read_text(encoding="utf-8") for file in files}
    assert text[".csv"].splitlines()[1] == "A|x,BC,one,0.0001,0.2,0.1,0.3,0.0001,True"
    assert r"A\|x" in text[".md"] and "< 0.001" in text[".md"] and "\n- Said.\n" in text[".md"]
    assert "## More of it\n" in text[".md"] and "Nothing" not in text[".md"] and "$<$ 0.001" in text[".tex"]
    found = json.loads(text[".json"])
    assert found["seeds"] == [0, 1] and found["more_of_it"] == [{"a": 1}] and found["nothing"] == []
    assert found["rows"][0]["low"] == 0.1 and found["rows"][0]["significant"] is True


class _Work:
    """Three pieces that write who did them; the last must stay with the process that asks."""

    def __init__(self, path: Path, said: list[str]) -> None:
        self.path, self.said = path, said

    @property
    def say(self) -> Callable[[str], None]:
        return self.said.append

    @contextmanager
    def open(self) -> Iterator[None]:
        self.path.mkdir()
        yield

    def stages(self) -> Iterator[Sequence[Piece]]:
        yield [
            Piece(self.path / name, name, partial(self._do, name), group) for name, group in (("a", "x"), ("b", "x"))
        ]
        yield [Piece(self.path / "c", "c", partial(self._do, "c"))]

    def _do(self, name: str) -> None:
        (self.path / name).write_text(str(os.getpid()), encoding="utf-8")


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_has_a_group_may_be_done_elsewhere_and_what_has_none_is_not(tmp_path: Path, jobs: int) -> None:
    said = list[str]()
    do_missing(partial(_Work, tmp_path / "run", said), jobs)
    by = {file.name: int(file.read_text(encoding="utf-8")) for file in (tmp_path / "run").iterdir()}
    assert by["a"] == by["b"] and by["c"] == os.getpid() and (by["a"] == os.getpid()) == (jobs == 1)
    assert said == (["a", "b", "c"] if jobs == 1 else ["done: a", "done: b", "c"])
