"""Layouts of data: what one is, those of the package, how a plugin adds one, and which one a file shows.

Owns the choice among layouts by looking at the content. Knows nothing of single fields: a layout of the package is one
module and one entry here, its name in registry.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from pamdp.data import aloe, jsonl, prefeval, spc, trl
from pamdp.data.fields import Fields, explain
from pamdp.data.reading import RECORDS, Intake, Record, Shape, first_line
from pamdp.errors import DataError
from pamdp.registry import LAYOUTS
from pamdp.types import Dialogue, PreferencePair

Kind = Literal["dialogues", "pairs", "personas"]
"""What a layout can hold; the functions of load.py are called after them."""
_LOOK_AT = 50
"""Records that detection looks at before it gives up; the first ones may be broken."""
_Function = TypeVar("_Function", bound=Callable[[Any], object])


@dataclass(frozen=True, slots=True)
class Layout:
    """How one kind of file is recognised and read. What makes something of a record raises a DataError if it is bad.

    Attributes:
      detect: whether a JSON object is a record of this layout; of a table, whether its first line is the header.
      dialogues, pairs, personas: what a record becomes, one or a list; None where it is no such thing. Pairs can
        always be had from the labelled turns of dialogues.
      shape: how a file is cut into records.
      group: name of a field; neighbours in which it is the same tell one dialogue together, and become one record whose
        value is the list of theirs. Where the first record lacks it, a file is about pairs.
    """

    detect: Callable[[Any], bool]
    dialogues: Callable[[Record], Dialogue | list[Dialogue]] | None = None
    pairs: Callable[[Record], PreferencePair | list[PreferencePair]] | None = None
    personas: Callable[[Record], str] | None = None
    shape: Shape = "lines"
    group: str = ""

    @property
    def kinds(self) -> list[Kind]:
        """What the layout holds."""
        has: dict[Kind, bool] = {
            "dialogues": self.dialogues is not None,
            "pairs": (self.pairs or self.dialogues) is not None,
            "personas": self.personas is not None,
        }
        return [kind for kind, holds in has.items() if holds]

    def kind(self, path: Path) -> Kind:
        """What a file is about.

        Raises:
          DataError: the file cannot be read.
        """
        first = next(RECORDS[self.shape](path, Intake(skip_bad=True)), None) if self.group else None
        return "pairs" if self.group and (first is None or self._name(first) is None) else self.kinds[0]

    def stream(self, kind: Kind, path: Path, intake: Intake) -> Iterator[Any]:
        """What of a kind that the layout holds is in a file, one after another; faults go to the intake.

        Raises:
          DataError: a record is bad and not to be skipped.
        """
        parse, records = getattr(self, kind), RECORDS[self.shape](path, intake)
        if parse is None:  # pairs of dialogues
            yield from (pair for dialogue in self.stream("dialogues", path, intake) for pair in pairs_of(dialogue))
            return
        if self.group and kind == "dialogues":
            records = self._grouped(records)
        while True:
            try:
                if (record := next(records, None)) is None:
                    return
                items = _several(parse(record))
                intake.admit(record, items)
            except DataError as error:
                intake.refuse(error)
            else:
                yield from items

    def _name(self, record: Record) -> object:
        return record.value.get(self.group) if isinstance(record.value, dict) else None

    def _grouped(self, records: Iterator[Record]) -> Iterator[Record]:
        def key(record: Record) -> object:
            name = self._name(record)
            return record if name is None else (name,)

        for _, neighbours in groupby(records, key):
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


for _name, _layout in {
    "aloe": Layout(_has("conversations"), aloe.dialogue),
    "jsonl": Layout(_has("turns"), jsonl.dialogue),
    "prefeval": Layout(_has("preference", "conversation"), prefeval.dialogue, shape="array"),
    "spc": Layout(spc.detect, spc.dialogue, shape="table"),
    "trl": Layout(_has("chosen", "rejected"), trl.dialogue, trl.pair, group="dialogue_id"),
    "pairs": Layout(_has("history", "preferred"), pairs=jsonl.pair),
    "prefeval-mcq": Layout(_has("preference", "classification_task_options"), pairs=prefeval.pairs, shape="array"),
    "personas": Layout(lambda record: False, personas=aloe.persona_text),
}.items():
    LAYOUTS.add(_name, _layout)


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
      shape: how a file is cut: a JSON object on each line, in one JSON array, or a CSV table, of which `detect` is
        given the header and the function each row, a list of texts.

    Example:
      ```python
      @pamdp.layout("mine", detect=lambda record: "talk" in record)
      def mine(record):
          turns = tuple(Turn(said["ask"], preferred=said["answer"]) for said in record["talk"])
          return Dialogue("", record["who"], Persona(record["about"]), turns)
      ```
    """
    own = jsonl.dialogue if gives == "dialogues" else jsonl.pair

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
            return [own(replace(record, value=line)) for line in lines]

        if gives == "dialogues":
            LAYOUTS.add(name, Layout(detect, dialogues=parse, shape=shape))
        else:
            LAYOUTS.add(name, Layout(detect, pairs=parse, shape=shape))
        return function

    return register


def detect(path: Path) -> str:
    """The name of the layout that a file's content shows; "personas" where it holds texts and nothing else.

    Raises:
      DataError: the file cannot be read, is empty, or shows no known layout.
    """
    header, tolerant, values = first_line(path), Intake(skip_bad=True), []
    # What registers last is asked first: a plugin knows its records better than the package does.
    layouts = [(name, LAYOUTS[name]) for name in reversed([*LAYOUTS])]

    def shown(value: object, shape: Shape) -> str | None:
        return next((name for name, layout in layouts if layout.shape == shape and layout.detect(value)), None)

    if table := shown(header, "table"):
        return table
    shape: Shape = "array" if header.startswith("[") else "lines"
    for record in islice(RECORDS[shape](path, tolerant), _LOOK_AT):
        if isinstance(record.value, dict) and (name := shown(record.value, shape)):
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
