"""Who may grade alone: never the judge that rewarded, nor what it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from pamdp.config import Config
from pamdp.errors import ConfigError
from pamdp.fingerprint import Fingerprint
from pamdp.preflight import require_judges
from pamdp.runs import Run


def _run(path: Path, rewarded: str) -> Run:
    judges = ({"role": "simulator", "name": "user"}, {"role": "reward", "name": rewarded})
    return Run.create(path / "run", Config(), Fingerprint(data="d", model="m", revision="r", judges=judges))


@pytest.mark.parametrize(
    ("rewarded", "names", "fine"),
    [
        ("embedded", ["embedded"], False),
        ("embedded", ["match", "likelihood"], False),
        ("embedded", ["embedded", "big"], True),
        ("match", ["match"], False),
        ("match", ["likelihood"], True),
        ("big", ["big"], False),
        ("big", ["match"], True),
    ],
)
def test_the_judge_that_rewarded_does_not_grade_alone(
    tmp_path: Path, rewarded: str, names: list[str], fine: bool
) -> None:
    run = _run(tmp_path, rewarded)
    if fine:
        require_judges(names, run)
        return
    with pytest.raises(ConfigError, match=f"{rewarded} gave the rewards of .*add a judge that is built differently"):
        require_judges(names, run)
