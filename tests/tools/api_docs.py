"""docs/api.md from the docstrings of the public names: `python -m tests.tools.api_docs` writes it anew."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path

import pamdp
from pamdp import testing

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "api.md"
HEAD = """# Python API

After this page you can load, train and compare policies from Python, and add parts of your own by decorator.

Everything is `import pamdp`; names are looked up when they are used first. This page is written from the docstrings by
`make docs`.
"""
PARTS = {
    "Load, train, compare": (
        "load",
        "clone",
        "reinforce",
        "evaluate",
        "Evaluation",
        "Policy",
        "Backbone",
        "load_backbone",
    ),
    "Data": ("load_dialogues", "load_pairs", "Dialogue", "Turn", "Persona", "Message"),
    "Your own parts": ("advantage", "judge", "user", "chat_model", "layout", "method", "Case", "Verdict"),
    "Settings and errors": ("Config", "JudgeConfig", "PamdpError"),
}  # fmt: skip
SHOWN = {"Policy": ("reply", "replies", "prefix", "act", "with_actor")}
"""Methods of a class that are shown with it."""


def page() -> str:
    """The page's text."""
    lines = [HEAD]
    for title, names in PARTS.items():
        lines.append(f"## {title}\n")
        for name in names:
            lines.append(_entry(f"pamdp.{name}", getattr(pamdp, name)))
            lines += [
                _entry(f"{name}.{method}", getattr(getattr(pamdp, name), method)) for method in SHOWN.get(name, ())
            ]
    lines.append("## Checkers for your own classes\n")
    lines += [_entry(f"pamdp.testing.{name}", getattr(testing, name)) for name in testing.__all__]
    return "\n".join(lines).rstrip() + "\n"


def _entry(name: str, part: object) -> str:
    """A heading, the signature and the docstring, word for word."""
    assert callable(part)
    signature = "" if inspect.isclass(part) and issubclass(part, Exception) else str(inspect.signature(part))
    # Annotations are texts, which `signature` shows in quotation marks.
    signature = re.sub(r"(: |-> )'([^']+)'", r"\1\2", signature)
    signature = re.sub(r"<function <?(\w+)>? at 0x\w+>", r"\1", signature)
    shown = textwrap.fill(f"{name}{signature}", 100, subsequent_indent="    ", break_long_words=False)
    text = inspect.cleandoc(part.__doc__ or "")
    return f"### {name}\n\n```python\n{shown}\n```\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
