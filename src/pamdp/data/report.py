"""What a check found, as a record, as JSON and as a table.

Owns the figures' names and how they are shown. Knows nothing of how they are measured.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

_SHOWN = 20
"""Lines of problems in the table; JSON has them all."""


@dataclasses.dataclass(frozen=True, slots=True)
class CheckReport:
    """What a file or folder holds. A share is None where there is nothing to divide by.

    Attributes:
      path: what was checked.
      format: the layout, or several joined by " + " for a folder.
      sha256: fingerprint of what was read.
      dialogues: how many were accepted; likewise pairs and texts (lines of a persona pool).
      users: different user ids among the dialogues.
      turns: turns of all dialogues.
      labelled_turns: turns with a preferred and a rejected reply.
      turns_preferred_longer: share of the labelled turns whose preferred reply has more characters.
      kinds: pairs of each kind.
      pairs_preferred_longer: share of the pairs whose preferred reply has more characters.
      pairs_without_profile_word: share of the pairs with a profile whose preferred reply has no content word of it.
      pairs_without_persona_word: share of all pairs whose preferred reply has none of profile and personality.
      twins: pairs that have a twin: the same history, the replies swapped.
      parroting: preferred replies that take six or more words in a row from the profile.
      longest_run: most words in a row that a preferred reply takes from the profile.
      mean_characters: mean length of user messages, preferred and rejected replies.
      skipped: records left out.
      repaired: what was mended or left out inside accepted records, and how often.
      problems: what must be mended; the check fails when there are any.
      notes: what is no fault but good to know.
    """

    path: str
    format: str
    sha256: str
    dialogues: int
    users: int
    turns: int
    labelled_turns: int
    turns_preferred_longer: float | None
    pairs: int
    kinds: Mapping[str, int]
    pairs_preferred_longer: float | None
    pairs_without_profile_word: float | None
    pairs_without_persona_word: float | None
    twins: int
    texts: int
    parroting: int
    longest_run: int
    mean_characters: Mapping[str, float]
    skipped: tuple[str, ...]
    repaired: Mapping[str, int]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_json(self) -> str:
        """The whole report as one JSON object."""
        return json.dumps({"ok": self.ok, **dataclasses.asdict(self)}, ensure_ascii=False, indent=2)

    def table(self) -> Table:
        """The report for people; figures of what the data does not hold are left out."""
        table = Table(title=_plain(self.path), title_justify="left", show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in self._rows():
            table.add_row(name, _plain(value))
        for name, lines, style in (
            ("skipped", self.skipped, "yellow"),
            ("problem", self.problems, "red"),
            ("note", self.notes, ""),
        ):
            for line in lines[:_SHOWN]:
                table.add_row(name, _plain(line), style=style)
            if len(lines) > _SHOWN:
                table.add_row(name, f"and {len(lines) - _SHOWN:,} more", style=style)
        table.add_row("verdict", "good" if self.ok else f"to be mended: {len(self.problems):,}", style="bold")
        return table

    def _rows(self) -> list[tuple[str, str]]:
        rows = [("format", self.format)]
        if self.dialogues:
            rows += [("dialogues", f"{self.dialogues:,} of {self.users:,} users, {self.turns:,} turns")]
        if self.labelled_turns:
            share = _percent(self.turns_preferred_longer)
            rows += [("turns with two replies", f"{self.labelled_turns:,}; preferred is the longer in {share}")]
        if self.pairs:
            kinds = ", ".join(f"{count:,} {kind or 'of no kind'}" for kind, count in self.kinds.items())
            rows += [
                ("pairs", f"{self.pairs:,} ({kinds})"),
                ("preferred is the longer", _percent(self.pairs_preferred_longer)),
                ("no profile word in it", _percent(self.pairs_without_profile_word)),
                ("no persona word in it", _percent(self.pairs_without_persona_word)),
                ("twins", f"{self.twins:,} ({_percent(self.twins / self.pairs)})"),
            ]
        if self.texts:
            rows += [("persona texts", f"{self.texts:,}")]
        if self.labelled_turns or self.pairs:
            rows += [("parroting", f"{self.parroting:,} replies; longest run of profile words {self.longest_run}")]
        if self.mean_characters:
            rows += [("mean characters", ", ".join(f"{name} {n:.0f}" for name, n in self.mean_characters.items()))]
        return rows + [("repaired", f"{what}: {count:,}") for what, count in self.repaired.items()]


def _plain(text: str) -> str:
    """Text from a file as it may be sent to a terminal: no markup, no control characters."""
    return escape("".join(character if character.isprintable() else "\ufffd" for character in text))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
