"""`pamdp data check`: what a file or folder holds, and whether it can be trusted.

Owns the measures of a check and how they are shown. Every fault is met, not only the first. Knows no layout.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pamdp.data.files import data_files, sha256
from pamdp.data.formats import Kind, detect
from pamdp.data.reading import Intake
from pamdp.data.text_overlap import content_words, longest_run
from pamdp.errors import DataError
from pamdp.registry import LAYOUTS
from pamdp.types import Dialogue, PreferencePair

if TYPE_CHECKING:
    from rich.table import Table

PARROTING = 6
"""Words in a row from the profile that count as reciting it."""
_FAIR = (0.4, 0.6)
"""Outside this share of longer preferred replies, length alone gives the preference away."""
_SHOWN = 20
"""Lines of problems in the table; JSON has them all."""


@dataclasses.dataclass(frozen=True, slots=True)
class CheckReport:
    """What a file or folder holds. A share is None where there is nothing to divide by."""

    path: str
    format: str  # the layout, or several joined by " + " for a folder
    sha256: str  # fingerprint of what was read
    dialogues: int  # accepted; likewise pairs and texts (of a persona pool)
    users: int
    turns: int
    labelled_turns: int  # with a preferred and a rejected reply
    turns_preferred_longer: float | None  # share of them whose preferred reply has more characters
    pairs: int
    kinds: Mapping[str, int]  # pairs of each kind
    pairs_preferred_longer: float | None
    pairs_without_profile_word: float | None  # share of those with a profile: no content word of it in the preferred
    pairs_without_persona_word: float | None  # share of all: none of profile and personality
    twins: int  # pairs that have a twin: the same history, the replies swapped
    texts: int
    parroting: int  # preferred replies that take six or more words in a row from the profile
    longest_run: int  # most words in a row that a preferred reply takes from it
    mean_characters: Mapping[str, float]  # of user messages, preferred and rejected replies
    skipped: tuple[str, ...]  # records left out
    repaired: Mapping[str, int]  # what was mended, merged or left out inside accepted records, and how often
    problems: tuple[str, ...]  # what must be mended; the check fails when there are any
    notes: tuple[str, ...]  # what is no fault but good to know

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_json(self) -> str:
        """The whole report as one JSON object."""
        return json.dumps({"ok": self.ok, **dataclasses.asdict(self)}, ensure_ascii=False, indent=2)

    def table(self) -> Table:
        """The report for people; figures of what the data does not hold are left out."""
        from rich.table import Table  # whoever only reads data does not wait for it
        from rich.text import Text

        table = Table(title=Text(_plain(self.path)), title_justify="left", show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in self._rows():
            table.add_row(name, Text(_plain(value)))
        faults = (("skipped", self.skipped, "yellow"), ("problem", self.problems, "red"), ("note", self.notes, ""))
        for name, lines, style in faults:
            more = [f"and {len(lines) - _SHOWN:,} more"] if len(lines) > _SHOWN else []
            for line in (*lines[:_SHOWN], *more):
                table.add_row(name, Text(_plain(line)), style=style)
        table.add_row("verdict", "good" if self.ok else f"to be mended: {len(self.problems):,}", style="bold")
        return table

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "format", self.format
        if self.dialogues:
            yield "dialogues", f"{self.dialogues:,} of {self.users:,} users, {self.turns:,} turns"
        if self.labelled_turns:
            share = _percent(self.turns_preferred_longer)
            yield "turns with two replies", f"{self.labelled_turns:,}; preferred is the longer in {share}"
        if self.pairs:
            kinds = ", ".join(f"{count:,} {kind or 'of no kind'}" for kind, count in self.kinds.items())
            yield "pairs", f"{self.pairs:,} ({kinds})"
            yield "preferred is the longer", _percent(self.pairs_preferred_longer)
            yield "no profile word in it", _percent(self.pairs_without_profile_word)
            yield "no persona word in it", _percent(self.pairs_without_persona_word)
            yield "twins", f"{self.twins:,} ({_percent(self.twins / self.pairs)})"
        if self.texts:
            yield "persona texts", f"{self.texts:,}"
        if self.labelled_turns or self.pairs:
            yield "parroting", f"{self.parroting:,} replies; longest run of profile words {self.longest_run}"
        if self.mean_characters:
            yield "mean characters", ", ".join(f"{name} {mean:.0f}" for name, mean in self.mean_characters.items())
        yield from (("repaired", f"{what}: {count:,}") for what, count in self.repaired.items())


def check(path: str | Path, format: str = "auto", skip_bad: bool = False) -> CheckReport:
    """Read everything and report on it; the files of a folder may have different layouts.

    Args:
      format: "auto" looks at each file's content; else the name of a layout.
      skip_bad: bad records are counted as skipped instead of being problems.

    Raises:
      ConfigError: there is no such layout.
      DataError: the path is missing, or its one file shows no known layout (in a folder, that is a problem).
    """
    files, intake = data_files(Path(path)), Intake(skip_bad=True)
    names, found = _read(files, format, intake)
    dialogues: list[Dialogue] = found["dialogues"]
    pairs: list[PreferencePair] = found["pairs"]
    turns = [(f"dialogue {d.id!r}, turn {n}", d.persona, turn) for d in dialogues for n, turn in enumerate(d.turns, 1)]
    labelled = [(place, t.preferred, t.rejected) for place, _, t in turns if t.preferred and t.rejected]
    replies = [*labelled, *((f"pair {pair.id!r}", pair.preferred, pair.rejected) for pair in pairs)]
    preferred = [(who.profile, turn.preferred) for _, who, turn in turns if turn.preferred]
    preferred += [(pair.persona.profile, pair.preferred) for pair in pairs]
    lengths = {
        "user": _mean([len(t.user) for _, _, t in turns] + [len(pair.history[-1].content) for pair in pairs]),
        "preferred": _mean(len(reply) for _, reply in preferred),
        "rejected": _mean(len(reply) for _, _, reply in replies),
    }
    turns_longer = _mean(len(better) > len(worse) for _, better, worse in labelled)
    pairs_longer = _mean(len(pair.preferred) > len(pair.rejected) for pair in pairs)
    runs = [longest_run(profile, reply) for profile, reply in preferred]
    parroting = sum(run >= PARROTING for run in runs)
    problems = [] if skip_bad else [*map(str, intake.skipped), *map(str, intake.mended)]
    if not any(found.values()):
        problems.append(f"{path}: 0 dialogues, 0 pairs: nothing is left to use (check the path, or mend the file)")
    same = "preferred and rejected are the same text (leave it out: it prefers nothing)"
    problems += [f"{place}: {same}" for place, better, worse in replies if better == worse]
    return CheckReport(
        path=str(path),
        format=" + ".join(names) or "none",
        sha256=sha256(files),
        dialogues=len(dialogues),
        users=len({dialogue.user_id for dialogue in dialogues}),
        turns=len(turns),
        labelled_turns=len(labelled),
        turns_preferred_longer=turns_longer,
        pairs=len(pairs),
        kinds=dict(sorted(Counter(pair.kind for pair in pairs).items())),
        pairs_preferred_longer=pairs_longer,
        pairs_without_profile_word=_wordless((p.persona.profile, p.preferred) for p in pairs if p.persona.profile),
        pairs_without_persona_word=_wordless((pair.persona.text, pair.preferred) for pair in pairs),
        twins=sum(pair.twin is not None for pair in pairs),
        texts=len(found["personas"]),
        parroting=parroting,
        longest_run=max(runs, default=0),
        mean_characters={name: mean for name, mean in lengths.items() if mean is not None},
        skipped=tuple(map(str, intake.skipped)) if skip_bad else (),
        repaired=dict(intake.repaired),
        problems=(*problems, *_bad_twins(pairs)),
        notes=tuple(_notes(turns_longer, pairs_longer, parroting, without_persona([*dialogues, *pairs]))),
    )


def _read(files: Sequence[Path], format: str, intake: Intake) -> tuple[list[str], dict[Kind, list[Any]]]:
    """Layouts and records of all files; a file among several that cannot be read is a problem of the intake."""
    names = dict[str, None]()
    found: dict[Kind, list[Any]] = {"dialogues": [], "pairs": [], "personas": []}
    for file in files:
        try:
            name = detect(file) if format == "auto" else format
            kind = LAYOUTS[name].kind(file)
            found[kind] += LAYOUTS[name].stream(kind, file, intake)
            names[name] = None
        except DataError as error:
            if len(files) == 1:
                raise
            intake.refuse(error)
    return list(names), found


def _mean(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else None


def _wordless(replies: Iterable[tuple[str, str]]) -> float | None:
    """Share of the replies that have no content word of the text beside them."""
    return _mean(content_words(text).isdisjoint(content_words(reply)) for text, reply in replies)


def _bad_twins(pairs: Sequence[PreferencePair]) -> Iterator[str]:
    by_id = {pair.id: pair for pair in pairs}
    for pair in pairs:
        twin = pair if pair.twin is None else by_id.get(pair.twin)
        if twin is pair:
            continue
        if twin is None:
            yield f"pair {pair.id!r}: its twin {pair.twin!r} is not there (keep twins in one file)"
        elif twin.twin != pair.id:
            yield f"pair {pair.id!r}: its twin {twin.id!r} names {twin.twin!r} (twins name each other)"
        elif (twin.history, twin.preferred, twin.rejected) != (pair.history, pair.rejected, pair.preferred):
            yield f"pair {pair.id!r}: it and {twin.id!r} are no twins (one history, the two replies swapped)"


def without_persona(items: Sequence[Dialogue | PreferencePair]) -> str:
    """A line on those whose person is not known, and what cannot be judged there; "" where all are known."""
    unknown = sum(
        not item.persona.text and not (isinstance(item, Dialogue) and any(turn.inferred.text for turn in item.turns))
        for item in items
    )
    if not unknown:
        return ""
    return (
        f"{unknown:,} of {len(items):,} have no profile and no personality: no judge can tell there whether a reply "
        "fits the person, only whether it fits anybody (`pamdp train online` infers profiles with rl.profile=inferred)"
    )


def _notes(turns_longer: float | None, pairs_longer: float | None, parroting: int, impersonal: str) -> Iterator[str]:
    for what, share in (("labelled turns", turns_longer), ("pairs", pairs_longer)):
        if share is not None and not _FAIR[0] <= share <= _FAIR[1]:
            yield f"preferred is the longer reply in {100 * share:.0f} % of the {what}: a judge of length alone profits"
    if parroting:
        yield f"{parroting:,} preferred replies recite the profile ({PARROTING} of its words in a row or more)"
    if impersonal:
        yield impersonal


def _plain(text: str) -> str:
    """Text from a file as it may be sent to a terminal: no control characters."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
