"""`pamdp data check`: what a file or folder holds, and whether it can be trusted.

Owns the measures of a check. Every fault is met, not only the first. Knows no layout, and not how a report is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pamdp.data.files import data_files, sha256
from pamdp.data.formats import DIALOGUES, DIRECT_PAIRS, PAIRS, PERSONAS, detect
from pamdp.data.load import stream, stream_texts
from pamdp.data.preference import tells_dialogues
from pamdp.data.reading import Intake
from pamdp.data.report import CheckReport
from pamdp.data.text_overlap import content_words, longest_run
from pamdp.errors import ConfigError, DataError
from pamdp.types import Dialogue, PreferencePair

__all__ = ["CheckReport", "check"]

_T = TypeVar("_T")
PARROTING = 6
"""Words in a row from the profile that count as reciting it."""
_FAIR = (0.4, 0.6)
"""Outside this share of longer preferred replies, length alone gives the preference away."""


@dataclass(slots=True)
class _Found:
    """Everything that was accepted, with the labelled replies and the profiles they must not recite."""

    dialogues: list[Dialogue] = field(default_factory=list)
    pairs: list[PreferencePair] = field(default_factory=list)
    texts: int = 0

    def users(self) -> Iterator[str]:
        """What users say: every turn's message, and the last of a pair's history."""
        yield from (turn.user for dialogue in self.dialogues for turn in dialogue.turns)
        yield from (pair.history[-1].content for pair in self.pairs)

    def preferred(self) -> Iterator[tuple[str, str]]:
        """Profile and preferred reply, wherever there is one."""
        for dialogue in self.dialogues:
            yield from ((dialogue.persona.profile, turn.preferred) for turn in dialogue.turns if turn.preferred)
        yield from ((pair.persona.profile, pair.preferred) for pair in self.pairs)

    def labelled(self) -> Iterator[tuple[str, str, str]]:
        """Place, preferred and rejected reply of every turn that has both."""
        for dialogue in self.dialogues:
            for number, turn in enumerate(dialogue.turns, 1):
                if turn.preferred is not None and turn.rejected is not None:
                    yield f"dialogue {dialogue.id!r}, turn {number}", turn.preferred, turn.rejected

    def replies(self) -> list[tuple[str, str, str]]:
        """Place, preferred and rejected reply of every labelled turn and every pair."""
        pairs = [(f"pair {pair.id!r}", pair.preferred, pair.rejected) for pair in self.pairs]
        return [*self.labelled(), *pairs]


def check(path: str | Path, format: str = "auto", skip_bad: bool = False) -> CheckReport:
    """Read everything and report on it; the files of a folder may have different formats.

    Args:
      path: a file, or a folder with .json, .jsonl and .csv files.
      format: "auto" looks at each file's content; else the name of a format, or "personas".
      skip_bad: bad records are counted as skipped instead of being problems.

    Raises:
      ConfigError: there is no such format.
      DataError: the path is missing, or its one file shows no known format (in a folder, that is a problem).
    """
    files, intake = data_files(Path(path)), Intake(skip_bad=True)
    names, found = _read_all(files, format, intake)
    labelled, replies = list(found.labelled()), found.replies()
    faults = () if skip_bad else (*intake.skipped, *intake.mended)
    problems = [*map(str, faults), *_empty(found, path), *_same(replies), *_bad_twins(found.pairs)]
    runs = [longest_run(profile, reply) for profile, reply in found.preferred()]
    parroting = sum(run >= PARROTING for run in runs)
    turns_longer = _share(labelled, lambda turn: len(turn[1]) > len(turn[2]))
    pairs_longer = _share(found.pairs, lambda pair: len(pair.preferred) > len(pair.rejected))
    without_profile, without_persona = _without_word(found.pairs)
    return CheckReport(
        path=str(path),
        format=" + ".join(dict.fromkeys(names)) or "none",
        sha256=sha256(files),
        dialogues=len(found.dialogues),
        users=len({dialogue.user_id for dialogue in found.dialogues}),
        turns=sum(len(dialogue.turns) for dialogue in found.dialogues),
        labelled_turns=len(labelled),
        turns_preferred_longer=turns_longer,
        pairs=len(found.pairs),
        kinds=dict(sorted(Counter(pair.kind for pair in found.pairs).items())),
        pairs_preferred_longer=pairs_longer,
        pairs_without_profile_word=without_profile,
        pairs_without_persona_word=without_persona,
        twins=sum(pair.twin is not None for pair in found.pairs),
        texts=found.texts,
        parroting=parroting,
        longest_run=max(runs, default=0),
        mean_characters=_mean_characters(found),
        skipped=tuple(map(str, intake.skipped)) if skip_bad else (),
        repaired=dict(intake.repaired),
        problems=tuple(problems),
        notes=tuple(_notes(turns_longer, pairs_longer, parroting)),
    )


def _read_all(files: Sequence[Path], format: str, intake: Intake) -> tuple[list[str], _Found]:
    """Take all files in, and name the format of each; in a folder, a file of no known format is one more fault."""
    found, names = _Found(), list[str]()
    pairs_intake = replace(intake, seen=set())
    for file in files:
        try:
            names.append(_read(file, format, intake, pairs_intake, found))
        except DataError as error:
            if len(files) == 1:
                raise
            intake.refuse(error)
    return names, found


def _read(file: Path, format: str, intake: Intake, pairs_intake: Intake, found: _Found) -> str:
    """Take one file in, and name its format. A dialogue and a pair may have one id, so their intakes differ in that."""
    name = detect(file) if format == "auto" else format
    if name == PERSONAS:
        found.texts += sum(1 for _ in stream_texts(file, intake))
    elif name in DIALOGUES and (name not in DIRECT_PAIRS or tells_dialogues(file)):
        found.dialogues += stream(DIALOGUES[name], file, intake)
    elif name in PAIRS:
        found.pairs += stream(PAIRS[name], file, pairs_intake)
    else:
        names = dict.fromkeys(("auto", *DIALOGUES, *PAIRS, PERSONAS))
        raise ConfigError(f"no format is called {name!r}; there are: {', '.join(names)}")
    return name


def _share(items: Sequence[_T], holds: Callable[[_T], bool]) -> float | None:
    return sum(map(holds, items)) / len(items) if items else None


def _mean(texts: Iterable[str]) -> float | None:
    lengths = [len(text) for text in texts]
    return sum(lengths) / len(lengths) if lengths else None


def _mean_characters(found: _Found) -> dict[str, float]:
    """Mean length of what users say and of both kinds of reply, of those that there are."""
    means = {
        "user": _mean(found.users()),
        "preferred": _mean(reply for _, reply in found.preferred()),
        "rejected": _mean(rejected for _, _, rejected in found.replies()),
    }
    return {name: mean for name, mean in means.items() if mean is not None}


def _without_word(pairs: Sequence[PreferencePair]) -> tuple[float | None, float | None]:
    """Share of the pairs whose preferred reply has no word of the profile (if any), and none of the whole persona."""
    profiled = [pair for pair in pairs if pair.persona.profile]
    return (
        _share(profiled, lambda pair: not _shares_word(pair.persona.profile, pair.preferred)),
        _share(pairs, lambda pair: not _shares_word(pair.persona.text, pair.preferred)),
    )


def _shares_word(text: str, reply: str) -> bool:
    return not content_words(text).isdisjoint(content_words(reply))


def _empty(found: _Found, path: str | Path) -> Iterator[str]:
    if not (found.dialogues or found.pairs or found.texts):
        yield f"{path}: 0 dialogues, 0 pairs: nothing is left to use (check the path, or mend the file)"


def _same(replies: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    for place, preferred, rejected in replies:
        if preferred == rejected:
            yield f"{place}: preferred and rejected are the same text (leave it out: it prefers nothing)"


def _bad_twins(pairs: Sequence[PreferencePair]) -> Iterator[str]:
    by_id = {pair.id: pair for pair in pairs}
    for pair in pairs:
        twin = by_id.get(pair.twin) if pair.twin is not None else pair
        if twin is None:
            yield f"pair {pair.id!r}: its twin {pair.twin!r} is not there (keep twins in one file)"
        elif twin is not pair and twin.twin != pair.id:
            yield f"pair {pair.id!r}: its twin {twin.id!r} names {twin.twin!r} (twins name each other)"
        elif twin is not pair and (twin.history, twin.preferred, twin.rejected) != (
            pair.history, pair.rejected, pair.preferred
        ):  # fmt: skip
            yield f"pair {pair.id!r}: it and {twin.id!r} are no twins (one history, the two replies swapped)"


def _notes(turns_longer: float | None, pairs_longer: float | None, parroting: int) -> Iterator[str]:
    for what, share in (("labelled turns", turns_longer), ("pairs", pairs_longer)):
        if share is not None and not _FAIR[0] <= share <= _FAIR[1]:
            yield f"preferred is the longer reply in {100 * share:.0f} % of the {what}: a judge of length alone profits"
    if parroting:
        yield f"{parroting:,} preferred replies recite the profile ({PARROTING} of its words in a row or more)"
