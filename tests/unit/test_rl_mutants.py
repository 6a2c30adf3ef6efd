"""Each formula, changed in one place, fails the test that docs/paper_map.md names beside the change.

The table "Mutants" of that file is the list: the module's source with one text replaced is imported afresh under its
own name, and the test is run against it. Every mutant must be caught; every original must pass in the same harness.
"""

import importlib.abc
import importlib.util
import re
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import NamedTuple

import pytest
from transformers import AttentionInterface, AttentionMaskInterface

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"\| ([^|]+) \| `([\w.]+)` \| `([^`]+)` \| `([^`]+)` \| `([\w/.]+)::(\w+)(?:\[(\w+)\])?` \|")


class Mutant(NamedTuple):
    """`old` in the source of `module` becomes `new`; `test` of `file` must then fail."""

    name: str
    module: str
    old: str
    new: str
    file: str
    test: str
    argument: str | None


def read_mutants() -> list[Mutant]:
    text = (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8")
    rows = [line for line in text[text.index("\n## Mutants") :].splitlines() if line.startswith("| ")][1:]
    matches = [(row, ROW.fullmatch(row)) for row in rows]
    unread = [row for row, match in matches if match is None]
    assert not unread, unread
    return [Mutant(*match.groups()) for _, match in matches if match is not None]


MUTANTS = read_mutants()


class MutantFinder(importlib.abc.MetaPathFinder):
    """Finds one module as its source with a text replaced; all else is left to the usual finders."""

    def __init__(self, name: str, old: str, new: str) -> None:
        self.name, self.old, self.new = name, old, new

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        file = (ROOT / "src").joinpath(*name.split(".")).with_suffix(".py")
        source = file.read_text(encoding="utf-8")
        assert source.count(self.old) == 1, f"{self.old!r} stands {source.count(self.old)} times in {file}"
        code = compile(source.replace(self.old, self.new), str(file), "exec")

        class Loader(SourceFileLoader):
            def get_code(self, fullname: str) -> CodeType:
                return code

        return importlib.util.spec_from_file_location(name, file, loader=Loader(name, str(file)))


def owned(name: str) -> bool:
    """The package, and the tools of tests that hold on to its classes."""
    return name == "pamdp" or name.startswith(("pamdp.", "tests.tools."))


@contextmanager
def imported_afresh(finder: MutantFinder | None) -> Iterator[None]:
    """Within, the package is imported anew, through the finder; afterwards all is as before."""
    modules = {name: sys.modules.pop(name) for name in list(sys.modules) if owned(name)}
    # What the package tells transformers of attention is told anew, too.
    told = [(kind, dict(kind._global_mapping)) for kind in (AttentionInterface, AttentionMaskInterface)]
    if finder:
        sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if finder:
            sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if owned(name)]:
            del sys.modules[name]
        sys.modules.update(modules)
        for kind, before in told:
            kind._global_mapping.update(before)
        for name, module in modules.items():
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], child, module)


def run(file: str, test: str, argument: str | None, finder: MutantFinder | None = None) -> None:
    with imported_afresh(finder):
        function = runpy.run_path(str(ROOT / "tests" / file))[test]
        function(*([] if argument is None else [argument]))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant: Mutant) -> None:
    new = "" if mutant.new == "(nothing)" else mutant.new.replace("\\n", "\n")
    finder = MutantFinder(f"pamdp.{mutant.module}", mutant.old, new)
    with pytest.raises((AssertionError, pytest.fail.Exception)) as caught:
        run(mutant.file, mutant.test, mutant.argument, finder)
    assert "times in" not in str(caught.value)


@pytest.mark.parametrize("file", sorted({mutant.file for mutant in MUTANTS}))
def test_originals_pass_in_the_same_harness(file: str) -> None:
    for test, argument in sorted({(m.test, m.argument or "") for m in MUTANTS if m.file == file}):
        run(file, test, argument or None)


def test_every_formula_has_a_mutant() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    modules = {path.stem for path in (ROOT / "src/pamdp/rl").glob("*.py")} - {"__init__"}
    assert modules <= {mutant.module.removeprefix("rl.") for mutant in MUTANTS}
    other = {
        "models.actor",
        "models.backbone",
        "models.actor_delta",
        "models.packed_branches",
        "train.steering",
        "train.ridge",
    }
    assert other <= {mutant.module for mutant in MUTANTS}
