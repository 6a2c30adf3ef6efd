"""What a wheel has to hold: every file of the package that is no module is taken by a pattern of the package data."""

import glob
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "pamdp"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PATTERNS: list[str] = SETTINGS["tool"]["setuptools"]["package-data"]["pamdp"]
NO_DATA = {".py", ".pyc", ".pyi"}


def matched(pattern: str, folder: Path) -> set[str]:
    """Files under FOLDER that a pattern takes, as setuptools reads it."""
    return {name for name in glob.glob(pattern, root_dir=folder, recursive=True) if (folder / name).is_file()}


def left_out(folder: Path, patterns: Iterable[str]) -> set[str]:
    """Data files that no pattern takes."""
    data = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix not in NO_DATA}
    return data - {name for pattern in patterns for name in matched(pattern, folder)}


def test_every_data_file_is_in_the_package() -> None:
    assert not left_out(PACKAGE, PATTERNS), "add a pattern to [tool.setuptools.package-data] in pyproject.toml"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_takes_something(pattern: str) -> None:
    assert matched(pattern, PACKAGE)


def test_folders_of_modules_are_packages() -> None:
    # A folder without __init__.py is found by nobody: its modules would be missing from the wheel.
    folders = {p.parent for p in PACKAGE.rglob("*.py")}
    assert not {str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").is_file()}


def test_a_file_that_no_pattern_takes_is_seen(tmp_path: Path) -> None:
    for name in ("a.txt", "deep/er/b.json", "deep/c.csv", "deep/d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert left_out(tmp_path, ["*.txt", "deep/**/*.json"]) == {"deep/c.csv"}


def test_licence_files_are_there() -> None:
    assert all((ROOT / name).is_file() for name in SETTINGS["project"]["license-files"])
