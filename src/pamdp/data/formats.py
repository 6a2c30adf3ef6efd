"""Layouts of data: what one is, those of the package, how a plugin adds one, and which one a file shows.

Owns the choice among layouts by looking at the content. Knows nothing of single fields: a layout of the package is one
module and one entry here, its name in registry.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import ValidationError

from pamdp.data import aloe, chats, jsonl, prefeval, rated, readings, spc, trl
from pamdp.data.columns import MARKS
from pamdp.data.fields import Fields, explain
from pamdp.data.files import beginning
from pamdp.data.reading import Intake, Record, Shape, records
from pamdp.errors import ConfigError, DataError
from pamdp.registry import LAYOUTS
from pamdp.types import Dialogue, PreferencePair

Kind = Literal["dialogues", "pairs", "personas", "rated"]
"""What a layout can hold; the functions of load.py are called after them."""
_LOOK_AT = 50
"""Records that detection looks at before it gives up; the first ones may be broken."""
_Function = TypeVar("_Function", bound=Callable[[Any], object])


@dataclass(frozen=True, slots=True)
class Layout:
    """How one kind of file is recognised and read.

    Attributes:
      detect: whether a JSON object is a record of this layout; of a table, whether its first line is the header.
      makes: what becomes of a record, one thing or a list, for each kind that the layout holds; the first kind is what
        its files are about. A bad record raises a DataError.
      shape: "table" for rows of CSV; else JSON values, which any file of JSON, Parquet or Arrow may hold.
      group: name of a field; neighbours in which it is the same tell one dialogue together, and become one record whose
        value is the list of theirs. A file whose first record lacks it is about pairs.
    """

    detect: Callable[[Any], bool]
    makes: Mapping[Kind, Callable[[Record], Any]]
    shape: Shape = "lines"
    group: str = ""

    def kind(self, path: Path) -> Kind:
        """What a file is about; a DataError where the file cannot be read."""
        first = next(records(path, Intake(skip_bad=True), self.shape), None) if self.group else None
        grouped = first is not None and isinstance(first.value, dict) and self.group in first.value
        return "pairs" if self.group and not grouped else next(iter(self.makes))

    def stream(self, kind: Kind, path: Path, intake: Intake) -> Iterator[Any]:
        """What of a kind that the layout holds is in a file, one after another; the intake is told of faults."""
        read = records(path, intake, self.shape)
        if self.group and kind == "dialogues":
            read = self._grouped(read)
        while True:
            try:
                if (record := next(read, None)) is None:
                    return
                items = _several(self.makes[kind](record))
                intake.admit(record, items)
            except DataError as error:
                intake.refuse(error)
            else:
                yield from items

    def _grouped(self, read: Iterator[Record]) -> Iterator[Record]:
        def key(record: Record) -> object:
            name = record.value.get(self.group) if isinstance(record.value, dict) else None
            return record if name is None else (name,)

        for _, neighbours in groupby(read, key):
            lines = list(neighbours)
            yield replace(lines[0], value=lines, notes=[])


def pairs_of(dialogue: Dialogue) -> list[PreferencePair]:
    """The turns of a dialogue that have both replies, as pairs; the history is the chosen path."""
    return [
        PreferencePair(f"{dialogue.id}/{t}", dialogue.persona, dialogue.history(t), turn.preferred, turn.rejected)
        for t, turn in enumerate(dialogue.turns)
        if turn.preferred is not None and turn.rejected is not None
    ]


def _several(made: Any) -> list[Any]:
    return made if isinstance(made, list) else [made]


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda record: record.keys() >= set(names)


def _dialogues(parse: Callable[[Record], Dialogue | list[Dialogue]]) -> Mapping[Kind, Callable[[Record], Any]]:
    """Dialogues, and their labelled turns as pairs."""
    return {"dialogues": parse, "pairs": lambda record: [p for d in _several(parse(record)) for p in pairs_of(d)]}


_OWN: Mapping[str, Layout] = {
    "aloe": Layout(aloe.detect, _dialogues(aloe.dialogue)),
    "feedback": Layout(rated.detect, {**_dialogues(jsonl.dialogue), "rated": rated.rated}),
    "jsonl": Layout(_has("turns"), _dialogues(jsonl.dialogue)),
    "prefeval": Layout(prefeval.detect, {"dialogues": prefeval.dialogue}),
    "readings": Layout(
        _has("history", "replies", "readings"),
        {
            "dialogues": lambda record: readings.read_state(record).rated().dialogue,
            "rated": lambda record: readings.read_state(record).rated(),
        },
    ),
    "spc": Layout(spc.detect, {"dialogues": spc.dialogue}, "table"),
    "trl": Layout(_has("chosen", "rejected"), {"dialogues": trl.dialogue, "pairs": trl.pair}, group="dialogue_id"),
    "pairs": Layout(_has("history", "preferred"), {"pairs": jsonl.pair}),
    "prefeval-mcq": Layout(_has("preference", "classification_task_options"), {"pairs": prefeval.pairs}),
    "messages": Layout(chats.names_speakers_by("role"), {"dialogues": chats.dialogue}),
    "sharegpt": Layout(chats.names_speakers_by("from"), {"dialogues": chats.dialogue}),
    "alpaca": Layout(_has("instruction", "output"), {"dialogues": chats.instruction}),
    "personas": Layout(lambda record: False, {"personas": aloe.persona_text}),
}
for _name in _OWN:
    LAYOUTS.add(_name, _OWN[_name])


def register_layout(
    name: str,
    *,
    detect: Callable[[Any], bool],
    gives: Literal["dialogues", "pairs"] = "dialogues",
    shape: Shape = "lines",
) -> Callable[[_Function], _Function]:
    """The decorator that registers a function from one record to a Dialogue (or PreferencePair) or a list of them.

    What the function makes is held to what our own lines are: texts lose outer white space, an empty id becomes file
    and line, an empty user_id a name for the profile. Whatever it raises over a record gets file and line.

    Args:
      detect: whether a record looks like one of these; asked before the package's own layouts are.
      gives: what the function makes.
      shape: "lines" or "array" for JSON objects, which the file may hold either way (or as rows of Parquet or Arrow);
        "table" for CSV, of which `detect` is given the header and the function each row, a list of texts.

    Example:
      ```python
      @pamdp.layout("mine", detect=lambda record: "talk" in record)
      def mine(record):
          turns = tuple(Turn(said["ask"], preferred=said["answer"]) for said in record["talk"])
          return Dialogue("", record["who"], Persona(record["about"]), turns)
      ```

    Raises:
      ConfigError: `gives` or `shape` is something else, or the name has blanks around it.
    """
    if gives not in ("dialogues", "pairs") or shape not in get_args(Shape):
        raise ConfigError(
            f"a layout gives dialogues or pairs, of {', '.join(get_args(Shape))}; not {gives!r} of {shape!r}"
        )

    def register(function: _Function) -> _Function:
        def parse(record: Record) -> list[Any]:
            if shape != "table":
                record.read(Fields)
            try:
                lines = [jsonl.as_line(item) for item in _several(function(record.value))]
            except ValidationError as error:
                raise record.fault(*explain(error)) from error
            except KeyError as error:
                raise record.fault(f"`{error.args[0]}` is missing", "write it, or leave this record out") from error
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                what = f"the layout {name!r} cannot read it: {' '.join(str(error).split())}"
                raise record.fault(what, "mend the record, or the layout") from error
            own = jsonl.pair if gives == "pairs" else jsonl.dialogue
            return [own(replace(record, value=line)) for line in lines]

        LAYOUTS.add(name, Layout(detect, {"pairs": parse} if gives == "pairs" else _dialogues(parse), shape))
        return function

    return register


def detect(path: Path) -> str:
    """The layout that a file's content shows, "personas" where all is texts; a DataError where it is none known."""
    if not (start := beginning(path)):
        raise DataError("the file is empty", path, fix="check the path")
    # A plugin is asked first: it knows its records better than the package does.
    layouts = [(name, LAYOUTS[name]) for name in sorted(LAYOUTS, key=_OWN.__contains__)]

    def shown(value: object, table: bool) -> str | None:
        fit = (name for name, layout in layouts if (layout.shape == "table") == table and layout.detect(value))
        return next(fit, None)

    header = "" if start.startswith(MARKS) else start.decode("utf-8", errors="replace")
    if table := shown(header, table=True):
        return table
    tolerant, values = Intake(skip_bad=True), list[object]()
    for record in islice(records(path, tolerant), _LOOK_AT):
        if isinstance(record.value, dict) and (name := shown(record.value, table=False)):
            return name
        values.append(record.value)
    if len(values) > len(tolerant.skipped) and all(isinstance(value, str) for value in values):
        return "personas"
    what, line, fix = "there is no JSON object in it", None, f"name one if you know it: {', '.join(LAYOUTS)}"
    if fields := next((", ".join(sorted(value)) for value in values if isinstance(value, dict)), None):
        what = f"its records have the fields {''.join(c if c.isprintable() else '?' for c in fields)[:200]}"
    elif tolerant.skipped:
        what, line = tolerant.skipped[0].what, tolerant.skipped[0].line
        fix = tolerant.skipped[0].fix or fix
    raise DataError(f"no known layout: {what}", path, line, fix)
