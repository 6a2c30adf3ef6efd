"""How far work is, where no terminal shows a bar: a line now and then, on a clock of the test's own."""

from __future__ import annotations

import io
import sys

import pytest

from pamdp.progress import Progress


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def _work(steps: int, seconds: float, total: int, done: int = 0) -> None:
    clock = Clock()
    with Progress("judging", total, done, clock) as bar:
        for _ in range(steps):
            clock.now += seconds
            bar.advance()


def _said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert not out
    return err.splitlines()


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _work(29, 1, 29)
    assert _said(capsys) == []


def test_long_work_says_a_line_every_half_minute_and_one_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    _work(100, 1, 100)
    assert _said(capsys) == [
        "pamdp: judging 30/100, 1.0/s, 70 s left",
        "pamdp: judging 60/100, 1.0/s, 40 s left",
        "pamdp: judging 90/100, 1.0/s, 10 s left",
        "pamdp: judging 100/100, 2 min in all",
    ]


def test_rates_are_those_of_this_run_and_times_are_readable(capsys: pytest.CaptureFixture[str]) -> None:
    _work(2, 20, 400, done=200)
    _work(1, 60, 400)
    assert _said(capsys) == [
        "pamdp: judging 202/400, 0.05/s, 66 min left",
        "pamdp: judging 202/400, 40 s in all",
        "pamdp: judging 1/400, 0.02/s, 6.7 h left",
        "pamdp: judging 1/400, 60 s in all",
    ]


def test_more_than_there_was_to_do_leaves_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    _work(1, 31, 0)
    assert _said(capsys) == ["pamdp: judging 1/0, 0.03/s", "pamdp: judging 1/0, 31 s in all"]


def test_what_fails_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with pytest.raises(KeyboardInterrupt), Progress("judging", 9, clock=clock) as bar:
        bar.advance(4)
        clock.now += 40
        raise KeyboardInterrupt
    assert _said(capsys) == ["pamdp: judging 4/9, 40 s in all"]


def test_a_terminal_is_shown_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    _work(40, 1, 40)
    assert "40/40" in shown.getvalue() and "pamdp:" not in shown.getvalue()
