"""What a run's calls cost and brought: on disk before anything is built on it, however the run ends.

Owns costs.json, the journals of unfinished rounds, and noting what servers refuse. Knows nothing of who is called.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pamdp.files import write_json
from pamdp.journal import Journal
from pamdp.llm.ledger import Ledger
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
        if (costs := self.run.path / "costs.json").is_file():
            self.ledger.load(json.loads(costs.read_text(encoding="utf-8")))

    def save(self) -> None:
        """Store what all calls so far cost."""
        write_json(self.run.path / "costs.json", self.ledger.to_json())

    def journal(self, step: int) -> Journal:
        """The turns of round STEP."""
        return Journal(self.run.path / "journal" / f"{step:08d}.jsonl", self.save)

    def learned(self, step: int) -> None:
        """Round STEP is in a checkpoint and will not be asked for again."""
        self.save()
        self.run.note_refused(self.fingerprints())
        self.journal(step).delete()
