"""The page of the audit of simulated users, the paper's figures beside ours.

Owns what its results are. Knows nothing of how answers came about (audit.py).
"""

from __future__ import annotations

from pathlib import Path

from pamdp.env.simulated import BROKEN, PACE
from pamdp.evaluation.imitation import Imitation, imitation
from pamdp.evaluation.recoverability import recovery
from pamdp.evaluation.significance import Estimate
from pamdp.evaluation.simulator import Audit, SimulatedDialogue, audit
from pamdp.evaluation.tables import Column, Record, TidyTable
from pamdp.reproduce.audit import COMPARED, TOLD, audit_file, talks_of
from pamdp.reproduce.config import OnlineReproduceConfig
from pamdp.reproduce.figures import steps
from pamdp.reproduce.online import split_online
from pamdp.reproduce.page import Page
from pamdp.reproduce.store import read_records
from pamdp.reproduce.tables import ALIGNED, WON, Table


def audit_page(config: OnlineReproduceConfig, table: Table, path: Path) -> Page:
    """The page of what is stored of the audit, with intervals as the settings ask for.

    Raises:
      RunError: something is missing or damaged.
    """
    seed, pace, n = config.seeds[0], PACE[config.online.difficulty], config.resamples
    i = imitation(read_records(audit_file(path, "compared", seed), COMPARED), config.auditor, n=n)
    rows: list[Record] = [
        {"measure": "suits its persona", "whose": "simulated", "value": i.aligned, "paper": ALIGNED},
        {"measure": "suits its persona", "whose": "recorded", "value": i.recorded},
        {"measure": "better of the two", "whose": "simulated", "value": i.won, "paper": WON},
        {"measure": "better of the two", "whose": "recorded", "value": i.lost},
    ]
    turns, lines, audits = list[Record](), dict[str, tuple[Estimate, ...]](), dict[str, Audit]()
    for whose, talks in talks_of(path, split_online(config).test, seed).items():
        dialogues = [SimulatedDialogue(t.persona, t.messages, t.said) for t in talks]
        audits[whose] = found = audit(dialogues, pace, opened=config.online.opening == "own")
        rows += [{"measure": measure, "whose": whose, "value": value} for measure, value in _shares(found).items()]
        told = read_records(audit_file(path, f"told-{whose}", seed), TOLD)
        for name in dict.fromkeys(t.recogniser for t in told):
            known = recovery([t for t in told if t.recogniser == name], config.others, n=n)
            lines[f"{name}, {whose}"] = known.accuracy
            for t, e in enumerate(known.accuracy):
                told_by, leaked = ((xs[t] if t < len(xs) else None) for xs in (found.told, found.leaked))
                at = {"turn": t + 1, "whose": whose, "profile_told": told_by, "leaked": leaked, "told_apart_by": name}
                turns.append({**at, "accuracy": e, "n": e.n, "masked": known.masked[t], "chance": known.chance})
    main = TidyTable(rows, {"whose": Column("whose messages"), "paper": Column("paper's")}, 2)
    figure = steps(table.name, table.title, "messages of the user; how many are told apart", lines, turns[0]["chance"])
    return Page(
        table.name, table.title, _notes(i, pace), main, (),
        {"by_turn": TidyTable(turns, {"whose": Column("whose messages")}, 2)},
        {"imitation": i, "audits": audits, "pace": pace}, {"": figure}, main.terminal(table.title), [*rows, *turns],
    )  # fmt: skip


def _shares(found: Audit) -> dict[str, float]:
    """What was measured of the messages alone."""
    out = {"role broken, of what was said": found.role_breaks, "own words repeated": found.repetitions}
    if found.answers:
        rejected = {"any reason": sum(found.rejected.values()), BROKEN: 0, **found.rejected}
        out |= {f"answers rejected: {why}": count / found.answers for why, count in rejected.items()}
    if found.stock or found.answers:
        out["stock messages"] = found.stock / (found.stock + found.messages)
    return out


def _notes(found: Imitation, pace: float) -> list[str]:
    """How to read the tables, and what they cannot say."""
    how = (
        "A message suits its persona where it is likelier under it than, in the mean, under other users'; the better "
        "of two is the one that gains more by its persona, per character: persona counts, style and sense do not."
        if found.auditor == "likelihood"
        else "A language model says whether the simulated message suits the persona as the recorded one does, and, "
        "asked in both orders, which is better."
    )
    often = "a turn" if pace == 1 else f"every {1 / pace:g} turns"
    return [
        f"{how} {found.places} places, {found.masked} of them without an answer or a verdict, which count nowhere.",
        "A message that breaks the part is asked for again and is never said, unless in words that are not known to: "
        "what was rejected, as shares of all answers of whoever plays the users, tells more of the model than what was "
        "said. A stock message stands in where no answer could be used; it counts as nobody's own words.",
        f"Leaked is the share of the profile told beyond one sentence {often}. Told apart: after so many messages of a "
        "user, the own persona was taken for the likeliest of the candidates; ties share the point. Recorded messages "
        "stand beside simulated ones because there is no absolute scale. First messages are those of the record unless "
        'online.opening is "own".',
    ]
