"""The registry of layouts: how each is recognised, cut into records and turned into dialogues or pairs.

Owns the names of the formats and the choice among them by looking at the content. Knows nothing of single fields: a new
data set is one module and one entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pamdp.data import aloe, jsonl, preference, prefeval, spc
from pamdp.data.documents import csv_rows, json_items
from pamdp.data.reading import BOM, Intake, Record, json_lines, raw_lines
from pamdp.errors import ConfigError, DataError
from pamdp.types import Dialogue, PreferencePair

_T = TypeVar("_T")
Shape = Literal["lines", "array", "table"]
"""How a file is cut: one JSON value a line, one JSON array, or CSV rows."""
_LOOK_AT = 50
"""Records that detection looks at before it gives up; the first ones may be broken."""


@dataclass(frozen=True, slots=True)
class Format(Generic[_T]):
    """One layout: `read` cuts a file into records, `parse` makes the items of a record.

    `detect` knows the layout by a record, or for a table by its first line.
    """

    name: str
    shape: Shape
    read: Callable[[Path, Intake], Iterator[Record]]
    detect: Callable[[object], bool]
    parse: Callable[[Record], Sequence[_T]]


def _one(parse: Callable[[Record], _T]) -> Callable[[Record], Sequence[_T]]:
    return lambda record: [parse(record)]


def _labelled(parse: Callable[[Record], Dialogue]) -> Callable[[Record], Sequence[PreferencePair]]:
    return lambda record: pairs_of(parse(record))


def pairs_of(dialogue: Dialogue) -> list[PreferencePair]:
    """The turns of a dialogue that have both replies, as pairs; the history is the chosen path."""
    return [
        PreferencePair(f"{dialogue.id}/{t}", dialogue.persona, dialogue.history(t), turn.preferred, turn.rejected)
        for t, turn in enumerate(dialogue.turns)
        if turn.preferred is not None and turn.rejected is not None
    ]


def _by_name(*formats: Format[_T]) -> Mapping[str, Format[_T]]:
    return {format.name: format for format in formats}


DIALOGUES = _by_name(
    Format("aloe", "lines", json_lines, aloe.detect, _one(aloe.dialogue)),
    Format("jsonl", "lines", json_lines, jsonl.detect, _one(jsonl.dialogue)),
    Format("prefeval", "array", json_items, prefeval.detect, _one(prefeval.dialogue)),
    Format("spc", "table", csv_rows, spc.detect, _one(spc.dialogue)),
    Format("trl", "lines", preference.grouped, preference.detect, _one(preference.dialogue)),
)
"""Layouts that hold dialogues."""

DIRECT_PAIRS = _by_name(
    Format("pairs", "lines", json_lines, jsonl.detect_pair, _one(jsonl.pair)),
    Format("prefeval-mcq", "array", json_items, prefeval.detect_options, prefeval.pairs),
    Format("trl", "lines", json_lines, preference.detect, _one(preference.pair)),
)
"""Layouts that hold preference pairs as such."""

_TURNS = _by_name(
    Format("aloe", "lines", json_lines, aloe.detect, _labelled(aloe.dialogue)),
    Format("jsonl", "lines", json_lines, jsonl.detect, _labelled(jsonl.dialogue)),
)
PAIRS = {**DIRECT_PAIRS, **_TURNS}
"""Layouts that pairs can be had from: as such, or from the labelled turns of dialogues."""

PERSONAS = "personas"
"""ALOE's persona pool, which holds neither dialogues nor pairs."""


def choose(formats: Mapping[str, Format[_T]], name: str, path: Path, what: str) -> Format[_T]:
    """The format called `name`, or for "auto" the one that the file's content shows.

    Args:
      what: "dialogues" or "preference pairs", for messages.

    Raises:
      ConfigError: there is no such format.
      DataError: the content shows none of these formats.
    """
    if name in formats:
        return formats[name]
    if name != "auto":
        raise ConfigError(f"no format for {what} is called {name!r}; there are: auto, {', '.join(formats)}")
    found = detect(path)
    if found not in formats:
        raise DataError(f"this file is in the format {found!r}, which holds no {what}", path, fix=_elsewhere(found))
    return formats[found]


def _elsewhere(name: str) -> str:
    if name == PERSONAS:
        return "load_personas reads it"
    return "load_pairs reads it" if name in PAIRS else "load_dialogues reads it"


_LOOKS: list[tuple[str, Shape, Callable[[object], bool]]] = [
    *((format.name, format.shape, format.detect) for format in DIALOGUES.values()),
    *((format.name, format.shape, format.detect) for format in PAIRS.values()),
]


def detect(path: Path) -> str:
    """The name of the format that a file's content shows; "personas" for ALOE's pool of texts.

    Raises:
      DataError: the file cannot be read, is empty, or shows no known format.
    """
    header, tolerant = _first_line(path), Intake(skip_bad=True)
    if table := _recognised(header, "table"):
        return table
    shape: Shape = "array" if header.startswith("[") else "lines"
    records = (json_items if shape == "array" else json_lines)(path, tolerant)
    values = []
    for record, _ in zip(records, range(_LOOK_AT), strict=False):
        if name := _recognised(record.value, shape):
            return name
        values.append(record.value)
    if len(values) > len(tolerant.skipped) and all(map(aloe.is_text, values)):
        return PERSONAS
    raise _unknown(path, values, tolerant)


def _recognised(value: object, shape: Shape) -> str | None:
    return next((name for name, its_shape, looks in _LOOKS if its_shape == shape and looks(value)), None)


def _first_line(path: Path) -> str:
    for _, raw in raw_lines(path, Intake(skip_bad=True)):
        if text := raw.decode("utf-8", errors="replace").removeprefix(BOM).strip():
            return text
    raise DataError("the file is empty", path, fix="check the path")


def _unknown(path: Path, values: list[object], tolerant: Intake) -> DataError:
    fix = f"the formats are: {', '.join({**DIALOGUES, **PAIRS})}; name one if you know it"
    keys = next((sorted(value) for value in values if isinstance(value, dict)), None)
    if keys is not None:
        shown = ", ".join(key if key.isprintable() else repr(key) for key in keys)
        return DataError(f"no known format has the fields {shown[:200]}", path, fix=fix)
    if tolerant.skipped:
        first = tolerant.skipped[0]
        return DataError(f"no known format: {first.what}", path, first.line, first.fix or fix)
    return DataError("no known format: there is no JSON object in it", path, fix=fix)
