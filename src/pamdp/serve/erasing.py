"""Everything about a user, to hand out or to erase, and which policy versions learned from whom.

Owns the account of versions and what erasing a user means for them. Knows nothing of HTTP and of training.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pamdp.files import Json
from pamdp.serve.profiles import Profiles
from pamdp.serve.store import Store, plain
from pamdp.serve.tables import LearnedRow, UserRow, VersionRow


@dataclass(frozen=True, slots=True)
class Version:
    """A policy version.

    Attributes:
      run: its run directory, or the folder that it was loaded from.
      space: hash of what gives its actions their meaning (train/action_space.py).
      erased: how many of the users that it learned from were erased since.
    """

    id: str
    run: str
    space: str
    erased: int = 0

    def again(self, store: str) -> list[str]:
        """The commands that train it again on what the store still holds, from the same clone."""
        new = f"{self.run}-again"
        export = ["pamdp", "feedback", "export", store, "--out", f"{new}-feedback"]
        train = ["pamdp", "train", "offline", "--run", new, "--from", self.run, f"data.path={new}-feedback"]
        return [shlex.join(export), shlex.join(train)]


def know_version(store: Store, version: str, run: str | Path, space: str, users: Collection[str] = ()) -> int:
    """Note a policy version that replies now; returns how many of the USERS whom it learned from are the store's.

    USERS are ids or aliases (`Store.alias`, as exports name users). Said again of a version, it adds users.
    """

    def work(session: Session) -> int:
        known = {name: id for id in store.users() for name in (id, store.alias(id))}
        learned = {known[user] for user in users if user in known}
        row = session.get(VersionRow, version) or VersionRow(id=version, created=time.time(), erased=0)
        row.run, row.space = str(run), space
        session.add(row)
        session.flush()
        for user in sorted(learned):
            if session.get(LearnedRow, (version, user)) is None:
                session.add(LearnedRow(version=version, user=user))
        return len(learned)

    return store.twice(work)


def versions(store: Store) -> list[Version]:
    """All versions that were noted, oldest first."""
    with store.database.reading() as session:
        rows = session.scalars(select(VersionRow).order_by(VersionRow.created, VersionRow.id))
        return [Version(row.id, row.run, row.space, row.erased) for row in rows]


def learned_by(store: Store, version: str) -> list[str]:
    """The users whom a version learned from and who are not erased."""
    with store.database.reading() as session:
        query = select(LearnedRow.user).where(LearnedRow.version == version).order_by(LearnedRow.user)
        return list(session.scalars(query))


def everything(store: Store, profiles: Profiles, user: str) -> Iterator[dict[str, Json]]:
    """All that is kept of a user, one record after another; `kind` says what it is."""
    yield {"kind": "user", "id": user}
    for reply in store.replies(user):
        yield {"kind": "reply", **asdict(reply)}
    for said in store.feedback(user):
        yield {"kind": "feedback", "by": said.kind, **{name: x for name, x in asdict(said).items() if name != "kind"}}
    profile = profiles.read(user)
    yield {"kind": "profile", "state": profile.state, "inferred_from": profile.inferred_from}
    for entry in profile.entries:
        yield {"kind": "statement", **asdict(entry)}
    with store.database.reading() as session:
        for version in session.scalars(select(LearnedRow.version).where(LearnedRow.user == plain(user))):
            yield {"kind": "learned", "version": version}


def erase(store: Store, user: str) -> Sequence[Version]:
    """Erase everything of a user; returns the versions that learned from them, which are marked from now on."""
    with store.writing() as session:
        query = select(VersionRow).join(LearnedRow, LearnedRow.version == VersionRow.id)
        mine = query.where(LearnedRow.user == plain(user)).order_by(VersionRow.created)
        marked = list(session.scalars(mine.with_for_update(of=VersionRow)))
        for row in marked:
            row.erased += 1
        found = [Version(row.id, row.run, row.space, row.erased) for row in marked]
        session.execute(delete(UserRow).where(UserRow.id == plain(user)))  # all else hangs on it
    store.database.truncate_log()
    return found
