"""Where a run of the online comparison keeps what.

    users.json                              users of both parts
    costs.json                              what the calls of the evaluation cost; a method's own are in its run
    seed-0/NAME/, seed-0/NAME.jsonl         a method's run, and its dialogues with test users
    seed-0/NAME.given.json                  the run that its policy is from, where it was trained elsewhere
    seed-0/NAME.journal.jsonl               the turns of dialogues under way: a killed run goes on at the turn
    graded/JUDGE/NAME.seed-0.jsonl          rewards
    audit/                                  answers of the audit of simulated users

Owns names. Knows nothing of what is in the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pamdp.reproduce.grid import slug


def run_folder(path: Path, method: str, seed: int) -> Path:
    """The run in which a method learns."""
    return path / f"seed-{seed}" / slug(method)


def talks_file(path: Path, method: str, seed: int) -> Path:
    """A method's dialogues with test users; the file is there when all of them are."""
    return path / f"seed-{seed}" / f"{slug(method)}.jsonl"


def journal_file(path: Path, method: str, seed: int) -> Path:
    """The turns of these dialogues while they are under way."""
    return talks_file(path, method, seed).with_suffix(".journal.jsonl")


def given_file(path: Path, method: str, seed: int) -> Path:
    """Which policy these dialogues are by, where it was trained elsewhere."""
    return talks_file(path, method, seed).with_suffix(".given.json")


def graded_file(path: Path, judge: str, method: str, seed: int) -> Path:
    """A judge's rewards of these dialogues."""
    return path / "graded" / slug(judge) / f"{slug(method)}.seed-{seed}.jsonl"


@dataclass(frozen=True, slots=True)
class AuditFiles:
    """Files of the audit of a run: those that hang on the seed of the dialogues stand in its folder."""

    path: Path
    seed: int

    @property
    def own(self) -> Path:
        """The folder of the seed."""
        return self.path / "audit" / f"seed-{self.seed}"

    @property
    def places(self) -> Path:
        """What simulated users say at every turn of the records."""
        return self.own / "places.jsonl"

    @property
    def compared(self) -> Path:
        """What the auditor says of each place."""
        return self.own / "compared.jsonl"

    def told(self, name: str) -> Path:
        """Who recognisers say each user is, after each message; on real users no seed bears."""
        return (self.own if name == "simulated" else self.path / "audit") / f"told-{name}.jsonl"
