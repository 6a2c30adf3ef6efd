"""Readings that several test files look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from pamdp.evaluation.readings import Readings
from tests.tools.reading import Sheet, make_dialogues, make_replies, make_sheet, said


@pytest.fixture
def sheet(tmp_path: Path) -> Sheet:
    dialogues = make_dialogues(users=4)
    return make_sheet(tmp_path, dialogues, make_replies(dialogues))


@pytest.fixture
def found(sheet: Sheet) -> Readings:
    return sheet.load(sheet.answer("ann", said("wwlt", "0122")), sheet.answer("bob", said("wllw", "022-"), "model"))
