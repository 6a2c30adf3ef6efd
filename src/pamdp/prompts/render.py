"""Prompt texts: files beside this module, filled in one pass.

Owns reading and substitution. User text may hold braces: a value is never scanned again.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from pamdp.errors import ConfigError
from pamdp.types import History

_SLOT = re.compile(r"\{([a-z_]+)\}")


@cache
def load(name: str) -> str:
    """Text of the prompt file NAME.txt, without the final newline; a ConfigError where there is none."""
    resource = files("pamdp.prompts").joinpath(f"{name}.txt")
    if not resource.is_file():
        raise ConfigError(f"no prompt named {name!r}")
    return resource.read_text(encoding="utf-8").rstrip("\n")


def render(name: str, **values: str) -> str:
    """The prompt NAME with every {slot} replaced in one pass; a ConfigError where slots and values do not match."""
    text = load(name)
    slots = set(_SLOT.findall(text))
    if slots != values.keys():
        raise ConfigError(f"prompt {name!r} has slots {sorted(slots)}, got {sorted(values)}")
    return _SLOT.sub(lambda match: values[match.group(1)], text)


def transcript(history: History, user: str = "Person", assistant: str = "Assistant", numbered: bool = False) -> str:
    """A history as lines that say who speaks; with NUMBERED the user's messages carry [1], [2], ..."""
    lines: list[str] = []
    asked = 0
    for message in history:
        asked += message.role == "user"
        number = f"[{asked}] " if numbered and message.role == "user" else ""
        lines.append(f"{number}{user if message.role == 'user' else assistant}: {message.content}")
    return "\n".join(lines)
