"""What the server believes of a user: an inferred profile that the user can see, correct and delete.

Owns entries, the messages that they rest on, and when they are inferred. Knows nothing of HTTP, and no policy: a
profile is for V(h, ω) and for judging, it never stands in what a policy reads.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter
from sqlalchemy import delete, select

from pamdp.async_bridge import run
from pamdp.env.profile import Finding, Profiler
from pamdp.errors import DataError, PamdpError
from pamdp.serve.chains import all_said
from pamdp.serve.served import ServedReply
from pamdp.serve.store import Store, plain
from pamdp.serve.tables import EntryRow, UserRow
from pamdp.types import Persona

Field = Literal["profile", "personality"]
State = Literal["none", "abstained", "thin", "inferred"]
TOO_LITTLE = 3
"""User messages below which an inferred profile says that it rests on too little."""
MESSAGES = 60
"""Messages of a user's chats, the last ones, that a profile is inferred from."""
NOTES: dict[State, str] = {
    "none": "nothing has been inferred; it holds what was written into it",
    "abstained": "nothing could be told from these messages, or what could be was taken out",
    "thin": f"inferred from fewer than {TOO_LITTLE} messages: too little to rely on",
    "inferred": "inferred; every statement names the messages it rests on",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One statement.

    Attributes:
      confidence: n/(n + 1) for n cited messages, 1 where somebody wrote it: a count, not a measured probability.
      cited: the user's messages that it rests on; none where somebody wrote it.
      edited_by: the key that wrote or changed it; None: inferred.
    """

    id: int
    field: Field
    text: str
    confidence: float
    cited: tuple[str, ...]
    edited_by: str | None
    created: float


@dataclass(frozen=True, slots=True)
class Profile:
    """All of them, and from how many messages they were inferred when."""

    user: str
    entries: tuple[Entry, ...]
    inferred_at: float = 0.0
    inferred_from: int = 0

    @property
    def state(self) -> State:
        """Whether it was inferred, and from enough."""
        if not self.inferred_at:
            return "none"
        if all(entry.edited_by for entry in self.entries):
            return "abstained"
        return "thin" if self.inferred_from < TOO_LITTLE else "inferred"

    @property
    def persona(self) -> Persona:
        """ω, for critics and judges."""
        said = {
            name: [e.text.rstrip(". ") for e in self.entries if e.field == name] for name in ("profile", "personality")
        }
        return Persona(*(" ".join(f"{text}." for text in texts) for texts in said.values()))


@dataclass(frozen=True, slots=True)
class Change:
    """A statement to add (no `id`), to change, or to take out (`text` None)."""

    text: str | None
    id: int | None = None
    field: Field = "profile"


class Profiles:
    """Profiles in a store; as a `Recorder` it also infers them as users talk.

    Args:
      profiler: who infers; None: profiles hold what is written into them.
      every: after how many replies to a user its profile is inferred anew, in the background; 0: only when asked.
    """

    def __init__(self, store: Store, profiler: Profiler | None = None, every: int = 0) -> None:
        self.store, self.profiler, self.every = store, profiler, every
        self._pool = ThreadPoolExecutor(1, "pamdp-profiles")
        self._under_way: dict[str, Future[None]] = {}

    def served(self, reply: ServedReply) -> None:
        """Store a reply; after every n-th of a user its profile is inferred in the background."""
        self.store.served(reply)
        if self.profiler is None or not self.every or self.store.count_replies(reply.user) % self.every:
            return
        before = self._under_way.get(reply.user)
        if before is None or before.done():
            self._under_way = {user: work for user, work in self._under_way.items() if not work.done()}
            self._under_way[reply.user] = self._pool.submit(self._quietly, reply.user)

    def close(self) -> None:
        """Wait for what is under way, and begin nothing more."""
        self._pool.shutdown(cancel_futures=True)

    def read(self, user: str) -> Profile:
        """The profile of a user; an empty one of a user that is not known."""
        with self.store.database.reading() as session:
            about = session.get(UserRow, plain(user))
            query = select(EntryRow).where(EntryRow.user == plain(user), EntryRow.removed.is_(False))
            entries = tuple(self._entry(row) for row in session.scalars(query.order_by(EntryRow.id)))
            return Profile(user, entries, *((about.inferred_at, about.inferred_from) if about else ()))

    def infer(self, user: str) -> Profile:
        """The profile, inferred anew; what somebody wrote, changed or took out stays as they left it.

        Raises:
          PamdpError: the profiler has no usable answer, or cannot be reached; the profile stays as it was.
        """
        history = all_said(self.store.replies(user), MESSAGES)
        if self.profiler is None or not history:
            return self.read(user)
        said = [message.content for message in history if message.role == "user"]
        self._replace(user, run(self.profiler.findings(history)), said)
        return self.read(user)

    def edit(self, user: str, changes: Sequence[Change], by: str) -> Profile:
        """All changes, or none; a DataError where a statement is not there or one would be empty."""
        seal, user = self.store.sealer.seal, plain(user)
        with self.store.writing() as session:
            for change in changes:
                if change.text is not None and not change.text.strip():
                    raise DataError("a statement is empty", fix="write null to take it out")
                if change.id is None:
                    if change.text is None:
                        raise DataError("a change has neither an id nor a text", fix="give one of them, or both")
                    session.add(EntryRow(
                        user=user, field=change.field, statement=seal(change.text.strip()), confidence=1.0,
                        cited=seal([]), edited_by=by, created=time.time(),
                    ))  # fmt: skip
                    continue
                row = session.get(EntryRow, change.id)
                if row is None or row.user != user or row.removed:
                    raise DataError(f"there is no statement {change.id}")
                row.removed = change.text is None
                row.statement, row.cited = seal((change.text or "").strip()), seal([])
                row.confidence, row.edited_by = 1.0, by
        self.store.database.truncate_log()
        return self.read(user)

    def forget(self, user: str) -> None:
        """Delete the whole profile of a user, and what was taken out of it."""
        with self.store.writing() as session:
            session.execute(delete(EntryRow).where(EntryRow.user == plain(user)))
            if (about := session.get(UserRow, plain(user))) is not None:
                about.inferred_at, about.inferred_from = 0.0, 0
        self.store.database.truncate_log()

    def _replace(self, user: str, findings: Sequence[Finding], said: Sequence[str]) -> None:
        seal, user = self.store.sealer.seal, plain(user)
        mine = EntryRow.user == user
        with self.store.writing() as session:
            about = session.get(UserRow, user, with_for_update=True)
            if about is None:  # erased while the profiler was asked
                return
            about.inferred_at, about.inferred_from = time.time(), len(said)
            session.execute(delete(EntryRow).where(mine, EntryRow.edited_by.is_(None)))
            settled = set(session.scalars(select(EntryRow.was).where(mine)))
            for finding in findings:
                if (digest := self._digest(finding.text)) not in settled:
                    n = len(set(finding.cited))
                    cited = [said[number - 1] for number in sorted(set(finding.cited))]
                    session.add(EntryRow(
                        user=user, field="profile", statement=seal(finding.text), confidence=n / (n + 1),
                        cited=seal(cited), was=digest, created=time.time(),
                    ))  # fmt: skip

    def _quietly(self, user: str) -> None:
        try:
            self.infer(user)
        except PamdpError as error:
            logging.getLogger(__name__).warning("a profile was not inferred: %s", error)

    def _digest(self, text: str) -> str:
        """Names a finding without telling it."""
        salt = self.store.database.about["salt"]
        return hashlib.sha256(f"{salt}:{' '.join(text.casefold().split())}".encode("utf-8", "replace")).hexdigest()

    def _entry(self, row: EntryRow) -> Entry:
        opened, field = self.store.sealer.open, TypeAdapter(Field).validate_python(row.field)
        said, cited = opened(row.statement), tuple(opened(row.cited))
        return Entry(row.id, field, said, row.confidence, cited, row.edited_by, row.created)
