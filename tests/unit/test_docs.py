"""What the documents name exists, what is public is described, and the page of the command line is the code's own."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pamdp
from pamdp.config import Config
from pamdp.settings import load
from tests.tools import api_docs, cli_docs
from tests.tools.cli_docs import ROOT

SOURCES = sorted((ROOT / "src" / "pamdp").rglob("*.py"))
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if path.is_file())
GENERATED = {ROOT / "docs" / "cli.md", ROOT / "docs" / "api.md"}
WRITTEN = [page for page in [*PAGES, *sorted(ROOT.glob(".github/**/*.md"))] if page not in GENERATED]
WIDTH = 120
# Where a page may name a file from: the root, the package, the tests, the folder of the page itself.
BASES = (ROOT, ROOT / "src" / "pamdp", ROOT / "src", ROOT / "tests")
ENDINGS = "py|md|toml|txt|json|jsonl|html|yaml|yml|cfg|svg|png|safetensors|j2|ini|sh"
# Made by commands, or names of files in a run: nothing that a checkout holds.
MADE = re.compile(
    r"^(runs/|\.venv|build/|~|/|\.\./|http|checkpoints/)|[A-Z*<{$…]|"
    r"^(config|fingerprint|metrics|traces|report|planner|critics|state|adapter|my|x)\.\w+$"
)
HAS_CLI = importlib.util.find_spec("pamdp.cli") is not None
needs_cli = pytest.mark.skipif(not HAS_CLI, reason="there is no command line yet")
needs_api = pytest.mark.skipif(not hasattr(pamdp, "load"), reason="there is no Python API yet")


def long_lines(text: str) -> list[int]:
    """Numbers of the lines that are too long; rows of the table of mutants hold code and may be."""
    lines = text.split("\n## Mutants\n")[0].splitlines()
    return [number for number, line in enumerate(lines, 1) if len(line) > WIDTH]


def defaults(text: str) -> Iterator[tuple[str, str, str]]:
    """Settings with their default and their value under the preset `paper`, as the paper map states them."""
    for row in re.findall(r"^\|(.*)\|$", text.split("\n## Mutants\n")[0], re.M):
        cells = [cell.strip() for cell in row.split("|")]
        names = re.findall(r"`((?:data|model|clone|rl)\.\w+)`", cells[1])
        if names:
            found = [cell.split(", ") if cell else [""] * len(names) for cell in cells[2:4]]
            yield from zip(names, *found, strict=True)


def public(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Modules' and classes' public members, not what functions hide inside."""

    def members(node: ast.Module | ast.ClassDef, where: str) -> Iterator[tuple[str, ast.AST]]:
        for item in node.body:
            if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not item.name.startswith(
                "_"
            ):
                yield where + item.name, item
                if isinstance(item, ast.ClassDef):
                    yield from members(item, f"{where}{item.name}.")

    yield "module", tree
    yield from members(tree, "")


def code_spans(text: str) -> list[str]:
    """What stands in `backticks` and in fenced blocks, line by line."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [line for block in fenced for line in block.splitlines()] + inline


def named_files(text: str) -> set[str]:
    """Files that a page names in code or links to."""
    names = {name for _, name in re.findall(r"(\]\()([^)\s#]+)[^)]*\)", text) if "://" not in name and name[0] != "#"}
    for span in code_spans(text):
        for word in re.split(r"[\s\"'(),;:=]+", span):
            folder = re.match(r"(src|tests|docs|benchmarks|examples)/", word)
            if re.fullmatch(rf"[\w./-]+\.({ENDINGS})", word) or (folder and re.fullmatch(r"[\w./-]+", word)):
                names.add(word.rstrip("."))
    return {name for name in names if not MADE.search(name)}


def named_functions(text: str) -> set[str]:
    """Names of `pamdp.NAME` in blocks of Python."""
    blocks = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))
    return set(re.findall(r"\bpamdp\.(\w+)", blocks))


def named_verbs(text: str) -> set[str]:
    """`pamdp VERB ...` in code: the words up to the first option or argument in capitals."""
    found = re.findall(r"(?:^|[\s/])pamdp((?: [a-z][a-z-]*\b(?![./=:]))+)", "\n".join(code_spans(text)), re.M)
    return {words.strip() for words in found}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_symbol_is_described(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    if not text.strip():
        return
    missing = [name for name, node in public(ast.parse(text)) if not ast.get_docstring(node)]
    assert not missing, f"no docstring: {', '.join(missing)}"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources_hold_no_leftovers(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    assert not re.findall(r"\b(?:TODO|FIXME)\b", text)
    assert len(text.splitlines()) <= 300, "a file is one thing: 300 lines at most"


# The page of the command line names files that commands write.
@pytest.mark.parametrize("page", [p for p in PAGES if p != cli_docs.PAGE], ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    names = named_files(page.read_text(encoding="utf-8"))
    assert not {name for name in names if not any((base / name).exists() for base in (*BASES, page.parent))}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_hold_no_paths_of_one_machine(page: Path) -> None:
    assert not re.findall(r"(?:^|[\s\"'`(])/(?:home|root|work|Users)/\S*", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_short(page: Path) -> None:
    assert not long_lines(page.read_text(encoding="utf-8")), f"longer than {WIDTH} characters"


@pytest.mark.parametrize(
    "page",
    [page for page in WRITTEN if page.parent != ROOT / ".github" and page.name not in ("README.md", "CHANGELOG.md")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_pages_open_with_what_they_are_for(page: Path) -> None:
    assert re.match(r"# .+\n\nAfter this page you ", page.read_text(encoding="utf-8"))


def test_the_paper_map_has_the_defaults() -> None:
    plain, paper = Config(), load(Config, ["paper"])
    stated = list(defaults((ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8")))
    assert len(stated) > 15
    for name, default, preset in stated:
        part, key = name.split(".")
        found = [float(getattr(getattr(config, part), key)) for config in (plain, paper)]
        assert [float(default), float(preset or default)] == found, name


@needs_cli
@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_commands_exist(page: Path) -> None:
    known = cli_docs.verbs()
    groups = {verb.rsplit(" ", 1)[0] for verb in known if " " in verb}

    def exists(words: str) -> bool:
        # What follows a command are its arguments; what follows a group must be one of its commands.
        parts = words.split()
        heads = [" ".join(parts[:n]) for n in range(len(parts), 0, -1)]
        found = next((head for head in heads if head in known), None)
        return found is not None and (found not in groups or found == words)

    assert not {words for words in named_verbs(page.read_text(encoding="utf-8")) if not exists(words)}


@needs_api
@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_functions_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not {name for name in named_functions(text) if not hasattr(pamdp, name)}


@needs_cli
def test_the_page_of_the_command_line_is_fresh() -> None:
    page = cli_docs.PAGE.read_text(encoding="utf-8") if cli_docs.PAGE.exists() else ""
    assert page == cli_docs.cli_page(), "docs/cli.md is stale: run `make docs`"


def test_these_checks_see_what_they_should() -> None:
    text = (
        "See `rl/advantages.py`, [this](docs/none.md#part), `src/pamdp/nowhere.py` and `runs/a/report.html`.\n"
        "```\npamdp train bc --config my.toml\npamdp data check PATH\n```\n"
        "`pamdp chat RUN` and `make test`; the package pamdp does things; `pamdp.cli` too.\n"
    )
    assert named_files(text) == {"rl/advantages.py", "docs/none.md", "src/pamdp/nowhere.py"}
    assert named_verbs(text) == {"train bc", "data check", "chat"}
    assert named_functions("`pamdp.a`\n```python\nimport pamdp\npamdp.load(1)\n@pamdp.user\n```\n") == {"load", "user"}
    assert long_lines(f"{'a' * 120}\n{'a' * 121}\n## Mutants\n{'a' * 121}\n") == [2]
    rows = (
        "| paper | setting | default | preset | why |\n"
        "| e, b | `rl.epochs`, `rl.kl` | 60, .01 | 5, .05 | |\n| x | `f.py` | 1 | | |\n"
    )
    assert list(defaults(rows)) == [("rl.epochs", "60", "5"), ("rl.kl", ".01", ".05")]
    tree = ast.parse(
        '"""m"""\nclass A:\n  """a"""\n  def f(self): ...\n  def _g(self): ...\ndef h():\n  def i(): ...\n'
    )
    assert [name for name, node in public(tree) if not ast.get_docstring(node)] == ["A.f", "h"]


def test_the_api_page_is_written_from_the_docstrings() -> None:
    assert api_docs.PAGE.read_text(encoding="utf-8") == api_docs.page(), "docs/api.md is stale: run `make docs`"
    shown = {name for names in api_docs.PARTS.values() for name in names}
    assert shown == set(pamdp.__all__)
