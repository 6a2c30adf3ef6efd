"""Reading and writing settings: presets by name, TOML files and dotted overrides become one checked model.

Owns the order of sources, the words of every complaint, and where a value comes from. Knows nothing of which settings
exist or what they mean: the models of config.py and their docstrings say so.
"""

from __future__ import annotations

import difflib
import inspect
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from pamdp.errors import ConfigError
from pamdp.nested import Key, holds, merge, moved, nested
from pamdp.registry import Registry


class Settings(BaseModel):
    """Base of all settings: immutable; an unknown key is an error.

    A setting that may be absent defaults to None, because TOML has no word for it.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True, protected_namespaces=()
    )
    renamed: ClassVar[Mapping[str, str]] = {}
    """Dotted names of before, or of other kinds of settings, and what they are here: `load` takes what has them."""


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, slots=True)
class _Names:
    registry: Registry[Any]
    more: tuple[str, ...]

    def __call__(self, name: str) -> str:
        try:
            return name if name in self.more else self.registry.require(name)
        except ConfigError as error:
            raise PydanticCustomError("unknown_name", "{said}", {"said": str(error)}) from error


def known(registry: Registry[Any], *more: str) -> AfterValidator:
    """What annotates a text setting whose value must be a name in REGISTRY, or one of MORE."""
    return AfterValidator(_Names(registry, more))


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it stands."""

    key: str  # its dotted name
    value: object
    default: object
    allowed: str  # a type with its range, or all that it may be
    meaning: str  # what its class's docstring says of it
    source: str  # who set it last: "default", a preset or file with the line, or the override


@dataclass(frozen=True, slots=True)
class _Source:
    """Values from one place, and the line of each key there (none for an override)."""

    origin: str
    values: dict[str, object]
    lines: dict[Key, int]


def load(kind: type[S], sources: Sequence[str | Path] = (), overrides: Sequence[str] = ()) -> S:
    """Settings of KIND: its defaults, then each source, then each override; later ones win.

    Args:
      sources: TOML files (names that end in .toml) and presets (all other names).
      overrides: "part.key=value" with a TOML value; a bare word is a string, `none` is absent, [a, b] a list.

    Raises:
      ConfigError: a key is unknown or a value wrong; the message names the file, the line and the closest valid key.
    """
    return _checked(kind, _sources(kind, sources, overrides))


def explain(kind: type[Settings], sources: Sequence[str | Path] = (), overrides: Sequence[str] = ()) -> list[Setting]:
    """Every setting of KIND with its value as `load` gives it, or its error, what it means, and where it comes from."""
    read = _sources(kind, sources, overrides)
    values, defaults, settings = flatten(_checked(kind, read)), flatten(kind()), []
    for key, (field, meaning) in _described(kind).items():
        name, allowed = ".".join(key), _allowed(field.annotation, field.metadata)
        source = _place(read, key) or "default"
        settings.append(Setting(name, values[name], defaults[name], allowed, meaning, source))
    return settings


def dump(settings: Settings) -> str:
    """SETTINGS as TOML text that `load` turns back into an equal model; absent values are left out."""
    return tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))


def flatten(settings: Settings) -> dict[str, object]:
    """Dotted key -> value of every setting, for tables, trackers and comparisons."""
    return {(name := ".".join(key)): attrgetter(name)(settings) for key in _described(type(settings))}


def presets() -> tuple[str, ...]:
    """Names of the presets that come with the package."""
    folder = resources.files("pamdp") / "presets"
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


def _sources(kind: type[Settings], sources: Sequence[str | Path], overrides: Sequence[str]) -> list[_Source]:
    read = [_read(source) for source in sources] + [_override(text) for text in overrides]
    names = [(_split(old), _split(new)) for old, new in kind.renamed.items()]
    for source in read:
        source.lines.update(
            (new + key[len(old) :], n)
            for old, new in names
            for key, n in [*source.lines.items()]
            if key[: len(old)] == old
        )
    return [_Source(source.origin, moved(source.values, kind.renamed), source.lines) for source in read]


def _checked(kind: type[S], read: Sequence[_Source]) -> S:
    # A part that is named in a source keeps what the whole sets in it; its class may have other defaults.
    parts = {name: field.default for name, field in kind.model_fields.items() if isinstance(field.default, Settings)}
    own = {name: part.model_dump(exclude_unset=True) for name, part in parts.items()}
    merged: dict[str, object] = {name: values for name, values in own.items() if values}
    for source in read:
        merged = merge(merged, source.values)
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ConfigError("; ".join(_complaint(kind, read, problem) for problem in problems[:3]) + more) from error


def _complaint(kind: type[Settings], read: Sequence[_Source], problem: ErrorDetails) -> str:
    key = tuple(part for part in problem["loc"] if isinstance(part, str))
    name, said = ".".join(key), problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        said = _unknown(kind, key)
    elif problem["type"] == "unknown_name":
        said = f"{name}: {said}"
    elif key:  # what is said of several settings together names them itself
        said = f"{name}: {said[:1].lower()}{said[1:]}, not {problem['input']!r}"
    return ": ".join(filter(None, (_place(read, key), said)))


def _place(read: Sequence[_Source], key: Key) -> str:
    """Where it was set last; "" if nowhere."""
    for source in reversed(read):
        if holds(source.values, key):
            line = next((source.lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in source.lines), None)
            return source.origin if line is None else f"{source.origin}:{line}"
    return ""


@cache
def _described(kind: type[Settings]) -> dict[Key, tuple[FieldInfo, str]]:
    """Every setting, with what the section "Attributes:" of its class's docstring, or of a base's, says of it."""
    meanings: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        section = inspect.cleandoc(part.__doc__ or "").partition("\nAttributes:")[2].partition("\n\n")[0]
        for entry in re.split(r"\n  (?=\S)", section):
            names, _, meaning = " ".join(entry.split()).partition(": ")
            meanings |= dict.fromkeys(names.split(", "), meaning)
    found: dict[Key, tuple[FieldInfo, str]] = {}
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            found |= {(name, *key): described for key, described in _described(field.annotation).items()}
        else:
            found[name,] = field, meanings.get(name, "")
    return found


def _allowed(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    for names in (item.func for item in metadata if isinstance(item, AfterValidator)):
        if isinstance(names, _Names):
            return " | ".join((*names.more, *names.registry))
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(map(str, parts))
    if type(None) in parts:
        return f"{_allowed(next(part for part in parts if part is not type(None)), metadata)}, or none"
    if origin is tuple:
        return f"list of {_allowed(parts[0])}"
    word = {bool: "true | false", int: "whole number", float: "number", str: "text"}.get(annotation, "table")
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    limits = [f"{sign} {getattr(m, bound)}" for m in metadata for bound, sign in signs.items() if hasattr(m, bound)]
    return " ".join([word, *limits])


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
    return _Source(f"override {text}", nested(key, _value(value.strip())), {})


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


def _unknown(kind: type[Settings], key: Key) -> str:
    """Names the closest key, one of the same table before one of another."""
    known = [*dict.fromkeys(key[:n] for key in _described(kind) for n in range(1, len(key) + 1))]
    name = ".".join(key)

    def likeness(candidate: Key) -> float:
        same = difflib.SequenceMatcher(None, key[-1], candidate[-1]).ratio()
        return same if candidate[:-1] == key[:-1] else 0.95 * same

    best = max(known, key=likeness)
    if likeness(best) >= 0.6:
        return f"unknown setting {name}; did you mean {'.'.join(best)}?"
    beside = [".".join(candidate) for candidate in known if candidate[:-1] == key[:-1]]
    return f"unknown setting {name}; there are: {', '.join(beside)}"


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
