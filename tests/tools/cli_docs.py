"""docs/cli.md, generated from the command line's own help. `make docs` runs this file."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from pamdp.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "cli.md"
NOTE = "<!-- Written by `make docs` from the help texts in the code; edit those. -->\n\n"


def cli_page() -> str:
    """The whole page."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="pamdp")
    lines = get_docs_for_click(obj=command, ctx=context, name="pamdp").splitlines()
    return NOTE + "\n".join(line.rstrip() for line in lines).strip() + "\n"


def verbs() -> set[str]:
    """All commands in full, and groups of them: "data", "data check", "train", "train bc", ..."""

    def walk(command: object, name: str) -> set[str]:
        inner = getattr(command, "commands", {})
        return {name} | {found for word, item in inner.items() for found in walk(item, f"{name} {word}".strip())}

    return walk(typer.main.get_command(app), "") - {""}


def leaves() -> list[str]:
    """The commands that are no groups."""
    return sorted(verb for verb in verbs() if not any(other.startswith(f"{verb} ") for other in verbs()))


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(cli_page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
