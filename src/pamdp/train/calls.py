"""What a run's calls cost and brought: on disk before anything is built on it, however the run ends.

Owns costs.json, the journals of unfinished rounds, and noting what servers refuse. Knows nothing of who is called. Of
several processes each has files of its own, NAME-RANK beside NAME, until a round is whole; whoever goes on reads all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pamdp import ranks
from pamdp.files import write_json
from pamdp.journal import Journal
from pamdp.llm.ledger import Entry, Ledger
from pamdp.runs import Run


@dataclass(slots=True)
class Calls:
    """The calls of a run; what earlier parts of it cost is on the account already.

    FINGERPRINTS gives those of whom is called, with what their servers are known to refuse.
    """

    run: Run
    ledger: Ledger
    fingerprints: Callable[[], Sequence[Mapping[str, str]]]

    def __post_init__(self) -> None:
        with ranks.agreed():
            if not ranks.rank():
                if (costs := self.run.path / "costs.json").is_file():
                    self.ledger.entries |= _read(costs)
                if left := self._beside():  # by processes that were killed
                    self._join([_read(path) for path in left])

    def save(self) -> None:
        """Store what all calls so far cost."""
        if ranks.rank() and not self.ledger.entries:
            return
        write_json(self.run.path / f"costs{_own()}.json", self.ledger.to_json())

    def total(self) -> Ledger:
        """What the calls of all processes cost."""
        out = Ledger()
        for entries in ranks.gather(self.ledger.entries):
            out.join(entries)
        return out

    def journal(self, step: int) -> Journal:
        """The turns of round STEP."""
        path = self.run.path / "journal" / f"{step:08d}{_own()}.jsonl"
        return Journal(path, self.save, sorted({*path.parent.glob(f"{step:08d}*.jsonl")} - {path}))

    def learned(self, step: int) -> None:
        """Round STEP is in a checkpoint and will not be asked for again."""
        spent = ranks.gather(self.ledger.entries)
        with ranks.agreed():
            if ranks.rank():
                self.ledger.entries.clear()
                return
            self._join(spent[1:])
            self.run.note_refused(self.fingerprints())
            journal = self.journal(step)
            for path in (journal.path, *journal.beside):
                path.unlink(missing_ok=True)

    def _join(self, others: Sequence[Mapping[str, Entry]]) -> None:
        """Put what other processes spent on the first one's account."""
        for entries in others:
            self.ledger.join(entries)
        self.save()
        for path in self._beside():
            path.unlink()

    def _beside(self) -> list[Path]:
        """The accounts of other processes than the first one."""
        return sorted(self.run.path.glob("costs-*.json"))


def _read(costs: Path) -> dict[str, Entry]:
    ledger = Ledger()
    ledger.load(json.loads(costs.read_text(encoding="utf-8")))
    return ledger.entries


def _own() -> str:
    """What stands in the names of this process's files."""
    return f"-{ranks.rank()}" if ranks.rank() else ""
