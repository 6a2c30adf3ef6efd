"""A sheet in a folder, and readers who answer it by method: what they say does not depend on letters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pamdp.evaluation.reading_sheet import Key, write_sheet
from pamdp.evaluation.readings import Readings, load_readings
from pamdp.evaluation.records import Judgement
from pamdp.models.recorded import Replies
from pamdp.types import Dialogue, Persona, Turn

PV = ("PAMDP", "Vanilla")
PAIRS = [("PAMDP", "Vanilla"), ("BC", "Vanilla"), ("PAMDP", "BC")]


def make_dialogues(users: int = 4, turns: int = 1) -> list[Dialogue]:
    return [
        Dialogue(
            f"talk-{u}", f"user-{u}", Persona(f"They keep {u} goats.", "Dry."),
            tuple(Turn(f"Goat {u}, day {t}?", f"Fine, day {t}.") for t in range(turns)),
        )
        for u in range(users)
    ]  # fmt: skip


def make_replies(
    dialogues: Sequence[Dialogue], methods: Sequence[str] = ("PAMDP", "BC", "Vanilla")
) -> dict[str, Replies]:
    """Every method has words of its own, which do not name it."""
    words = {method: f"words of kind {number}" for number, method in enumerate(methods)}
    keys = [(d.id, t) for d in dialogues for t in range(len(d.turns))]
    return {method: {key: f"{words[method]} to {key[0]} at {key[1]}" for key in keys} for method in methods}


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet that was written, and what was answered to it."""

    folder: Path
    key_file: Path
    key: Key

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "sheet.jsonl").read_text("utf-8").split("\n") if line]

    def answer(self, reader: str, said: Mapping[str, Mapping[str, Any]], kind: str = "person") -> Path:
        """A file of verdicts.

        Args:
          said: dialogue -> `grades`, method -> (form, sense) with None for what is left out, and `prefer`,
            (method, baseline) -> outcome.
        """
        lines = []
        for name, place in self.key.states.items():
            if (own := said.get(place.state[1])) is None:
                continue
            grades = {
                place.letters[method]: {q: g for q, g in zip(("form", "sense"), given, strict=True) if g is not None}
                for method, given in own.get("grades", {}).items()
            }
            prefer = {}
            for pair, outcome in own.get("prefer", {}).items():
                mine, other = (place.letters[method] for method in pair)
                prefer["-".join(sorted((mine, other)))] = {"win": mine, "loss": other, "tie": "tie"}[outcome]
            lines.append({"state": name, "reader": reader, "kind": kind, "grades": grades, "prefer": prefer})
        path = self.folder.parent / f"{reader}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return path

    def load(self, *files: Path) -> Readings:
        return load_readings(self.folder, self.key_file, files)


def make_sheet(
    root: Path, dialogues: Sequence[Dialogue], replies: Mapping[str, Replies], pairs: Any = PAIRS, **options: Any
) -> Sheet:
    folder, key_file = root / "sheet", root / "secret" / "key.json"
    return Sheet(folder, key_file, write_sheet(folder, key_file, dialogues, replies, pairs, **options))


def said(outcomes: str, forms: str) -> dict[str, dict[str, Any]]:
    """Of each dialogue: w, l, t or - for PAMDP against Vanilla, and the form of PAMDP's reply, or -."""
    names = {"w": "win", "l": "loss", "t": "tie"}
    return {
        f"talk-{i}": {
            "prefer": {PV: names[o]} if o != "-" else {},
            "grades": {"PAMDP": (int(f), None)} if f != "-" else {},
        }
        for i, (o, f) in enumerate(zip(outcomes, forms, strict=True))
    }


def judged(method: str, baseline: str, *p_win: float, judge: str = "match", **more: Any) -> list[Judgement]:
    """A model judge's verdicts on the dialogues in turn."""
    return [
        Judgement(method, baseline, judge, f"user-{i}", f"talk-{i}", 0, more.get("sample", 0), p, 1 - p, 0.0, "win")
        for i, p in enumerate(p_win)
    ]


def row(rows: list[dict[str, Any]], **wanted: str) -> dict[str, Any]:
    (only,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return only
