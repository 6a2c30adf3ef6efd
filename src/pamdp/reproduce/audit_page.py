"""The page of the audit of simulated users, the paper's figures beside ours.

Owns what its results are. Knows nothing of how answers came about (audit.py).
"""

from __future__ import annotations

from pathlib import Path

from pamdp.env.simulated import BROKEN, PACE
from pamdp.evaluation.imitation import Compared, Imitation, imitation
from pamdp.evaluation.recoverability import Told, accuracy
from pamdp.evaluation.significance import Estimate
from pamdp.evaluation.simulator import Audit, audit
from pamdp.evaluation.tables import Record, TidyTable
from pamdp.reproduce.audit import audit_file, talks_of
from pamdp.reproduce.config import OnlineReproduceConfig
from pamdp.reproduce.figures import steps
from pamdp.reproduce.online import split_online
from pamdp.reproduce.page import Page
from pamdp.reproduce.store import AGAIN
from pamdp.reproduce.tables import ALIGNED, WON, Table
from pamdp.stored import read_records


def audit_page(config: OnlineReproduceConfig, table: Table, path: Path) -> Page:
    """The page of what is stored of the audit; a DataError names a file that is missing or damaged."""
    seed, pace, n = config.seeds[0], PACE[config.online.difficulty], config.resamples
    i = imitation(read_records(audit_file(path, "compared", seed), Compared, AGAIN), config.auditor, n=n)
    shares = (("simulated", i.aligned, ALIGNED), ("recorded", i.recorded, None))
    better = (("simulated", i.won, WON), ("recorded", i.lost, None))
    rows: list[Record] = [
        {"measure": measure, "whose": whose, "value": e, "n": e.n, "paper": paper}
        for measure, found in (("suits its persona", shares), ("better of the two", better))
        for whose, e, paper in found
    ]
    turns, lines, audits = list[Record](), dict[str, list[Estimate]](), dict[str, Audit]()
    chance = 1 / (1 + config.others)
    for whose, talks in talks_of(path, split_online(config).test, seed).items():
        audits[whose] = found = audit(talks, pace, opened=config.online.opening == "own")
        rows += [{"measure": what, "whose": whose, "value": x, "n": n} for what, x, n in _shares(found)]
        for what, by_turn in (("profile told", found.told), ("leaked", found.leaked)):
            turns += [{"measure": what, "whose": whose, "turn": t, "value": x} for t, x in enumerate(by_turn, 1)]
        told = read_records(audit_file(path, f"told-{whose}", seed), Told, AGAIN)
        for name in dict.fromkeys(t.recogniser for t in told):
            known = accuracy([t for t in told if t.recogniser == name], n=n)
            lines[f"{name}, {whose}"] = [e for e, _ in known]
            for t, (e, masked) in enumerate(known, 1):
                at = {"measure": f"told apart by {name}", "whose": whose, "turn": t, "value": e, "n": e.n}
                turns.append({**at, "masked": masked, "chance": chance})
    main = TidyTable(rows)
    figure = steps(table, "messages of the user; share told apart", lines, chance)
    return Page(
        table, _notes(i, pace), main, (), {"by_turn": TidyTable(turns)},
        {"imitation": i, "audits": audits, "pace": pace}, {"": figure}, main.terminal(table.title), [*rows, *turns],
    )  # fmt: skip


def _shares(found: Audit) -> list[tuple[str, float, int]]:
    """What was measured of the messages alone: its name, a share, and of how many."""
    out = [("role broken, of what was said", found.role_breaks), ("own words repeated", found.repetitions)]
    shares = [(name, share, found.messages) for name, share in out]
    if found.answers:
        rejected = {"any reason": sum(found.rejected.values()), BROKEN: 0, **found.rejected}
        shares += [(f"answers rejected: {why}", k / found.answers, found.answers) for why, k in rejected.items()]
    if found.stock or found.answers:
        every = found.stock + found.messages
        shares.append(("stock messages", found.stock / every, every))
    return shares


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
