"""Reading and writing settings: presets by name, TOML files and dotted overrides become one checked model.

Owns the order of sources, the words of every complaint and where it points. Knows nothing of which settings exist
(config.py).
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from pamdp.errors import ConfigError
from pamdp.registry import Registry

Key = tuple[str, ...]


class Settings(BaseModel):
    """Base of all settings: immutable; an unknown key is an error.

    A setting that may be absent defaults to None, because TOML has no word for it.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True, protected_namespaces=()
    )


S = TypeVar("S", bound=Settings)


def known(registry: Registry[Any], *more: str) -> AfterValidator:
    """What annotates a text setting whose value must be a name in REGISTRY, or one of MORE."""

    def check(name: str) -> str:
        try:
            return name if name in more else registry.require(name)
        except ConfigError as error:
            raise PydanticCustomError("unknown_name", "{said}", {"said": str(error)}) from error

    return AfterValidator(check)


@dataclass(frozen=True, slots=True)
class _Source:
    """Values from one place, and the line of each key there (none for an override)."""

    origin: str
    values: dict[str, object]
    lines: dict[Key, int]

    def place(self, key: Key) -> str:
        line = next((self.lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in self.lines), None)
        return self.origin if line is None else f"{self.origin}:{line}"


def load(kind: type[S], sources: Sequence[str | Path] = (), overrides: Sequence[str] = ()) -> S:
    """Settings of KIND: its defaults, then each source, then each override; later ones win.

    Args:
      sources: TOML files (names that end in .toml) and presets (all other names).
      overrides: "part.key=value" with a TOML value; a bare word is a string, `none` is absent, [a, b] a list.

    Raises:
      ConfigError: a key is unknown or a value wrong; the message names the file, the line and the closest valid key.
    """
    read = [_read(source) for source in sources] + [_override(text) for text in overrides]
    merged: dict[str, object] = {}
    for source in read:
        merged = _merge(merged, source.values)
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = []
        for problem in problems[:3]:
            key = tuple(part for part in problem["loc"] if isinstance(part, str))
            if problem["type"] == "extra_forbidden":
                what = _unknown(kind, key)
            elif problem["type"] == "unknown_name":
                what = f"{'.'.join(key)}: {problem['msg']}"
            else:
                what = _wrong(key, problem["msg"], problem["input"])
            owner = next((source for source in reversed(read) if _holds(source.values, key)), None)
            lines.append(f"{owner.place(key)}: {what}" if owner else what)
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ConfigError("; ".join(lines) + more) from error


def dump(settings: Settings) -> str:
    """SETTINGS as TOML text that `load` turns back into an equal model; absent values are left out."""
    return tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))


def flatten(settings: Settings) -> dict[str, object]:
    """Dotted key -> value of every setting, for tables, trackers and comparisons."""
    flat: dict[str, object] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        flat |= (
            {f"{name}.{key}": item for key, item in flatten(value).items()}
            if isinstance(value, Settings)
            else {name: value}
        )
    return flat


def presets() -> tuple[str, ...]:
    """Names of the presets that come with the package."""
    folder = resources.files("pamdp") / "presets"
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


def _read(source: str | Path) -> _Source:
    name = str(source)
    if not name.endswith(".toml"):
        if name not in presets():
            close = difflib.get_close_matches(name, presets(), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(presets())}"
            raise ConfigError(f"no preset {name!r}; {hint} A file's name ends in .toml")
        origin, data = f"preset {name}", (resources.files("pamdp") / "presets" / f"{name}.toml").read_bytes()
    else:
        try:
            origin, data = name, Path(name).read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read settings {name}: {error.strerror}") from error
    try:
        text = data.decode()
        return _Source(origin, tomllib.loads(text), _lines(text))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{origin}: not UTF-8 text; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        raise ConfigError(f"{origin}{f':{line[1]}' if line else ''}: not TOML: {error}") from error


def _override(text: str) -> _Source:
    name, sign, value = text.partition("=")
    key = _split(name)
    if not sign or not all(key):
        raise ConfigError(f"an override is key=value, such as clone.lr=1e-3; got {text!r}")
    values: object = _value(value.strip())
    for part in reversed(key):
        values = {part: values}
    assert isinstance(values, dict)
    return _Source(f"override {text}", values, {})


def _value(text: str) -> object:
    if text.lower() == "none":
        return None
    try:
        parsed = tomllib.loads(f"value = {text}")
        if set(parsed) == {"value"}:
            return parsed["value"]
    except tomllib.TOMLDecodeError:
        pass
    if text.startswith("[") and text.endswith("]"):
        return [_value(part.strip()) for part in text[1:-1].split(",") if part.strip()]
    return text


def _merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _holds(values: object, key: Key) -> bool:
    for part in key:
        if not isinstance(values, dict):
            return True
        if part not in values:
            return False
        values = values[part]
    return True


def _unknown(kind: type[Settings], key: Key) -> str:
    """Names the closest key, one of the same table before one of another."""
    known = _keys(kind)
    name = ".".join(key)

    def likeness(candidate: Key) -> float:
        same = difflib.SequenceMatcher(None, key[-1], candidate[-1]).ratio()
        return same if candidate[:-1] == key[:-1] else 0.95 * same

    best = max(known, key=likeness)
    if likeness(best) >= 0.6:
        return f"unknown setting {name}; did you mean {'.'.join(best)}?"
    beside = [".".join(candidate) for candidate in known if candidate[:-1] == key[:-1]]
    return f"unknown setting {name}; there are: {', '.join(beside)}"


def _wrong(key: Key, message: str, value: object) -> str:
    said = message.removeprefix("Value error, ")
    # What is said of several settings together names them itself.
    return f"{'.'.join(key)}: {said[:1].lower()}{said[1:]}, not {value!r}" if key else said


def _keys(kind: type[Settings]) -> list[Key]:
    keys: list[Key] = []
    for name, field in kind.model_fields.items():
        keys.append((name,))
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            keys += [(name, *rest) for rest in _keys(field.annotation)]
    return keys


def _lines(text: str) -> dict[Key, int]:
    """Where each table and key of a TOML text stands; what it cannot place it leaves out."""
    lines: dict[Key, int] = {}
    table: Key = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+([^\[\]]+)\]+\s*(#.*)?$", line):
            table = _split(header[1])
            lines.setdefault(table, number)
        elif key := re.match(r"\s*([^=#\[\]]+?)\s*=", line):
            lines.setdefault((*table, *_split(key[1])), number)
    return lines


def _split(name: str) -> Key:
    return tuple(part.strip().strip("\"'") for part in name.split("."))
