"""What a server remembers: users, the replies that they were given, and what they said of them.

Owns writing and reading these, who may speak of which reply, aliases of users, and for how long replies are kept. Knows
nothing of HTTP, of policies and of how a profile is inferred (profiles.py). What a method has done is on disk when it
returns. Several processes and threads may use one store.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pamdp.errors import DataError, StoreError
from pamdp.serve.database import Database
from pamdp.serve.sealing import Sealer
from pamdp.serve.served import ServedReply
from pamdp.serve.tables import FeedbackRow, ReplyRow, UserRow
from pamdp.types import Message

T = TypeVar("T")
Kind = Literal["thumb", "preferred", "correction"]
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a user said of a reply.

    Attributes:
      kind: a thumb; that the reply is preferred over another one to the same history; or what it should have said.
      thumb: 1 or -1, of a thumb.
      over: id of the reply that another one is preferred over.
      text: of a correction.
    """

    id: str
    user: str
    reply: str
    kind: Kind
    thumb: int | None = None
    over: str | None = None
    text: str | None = None
    created: float = 0.0


class Conflict(StoreError):
    """A key of idempotency was used before for something else."""


class Store:
    """Keeps what is served; see `Recorder`.

    Args:
      where: a file of SQLite, made if it is not there, or a URL of SQLAlchemy's.
      key: what texts are encrypted with (sealing.py); None: they lie open.
      days: replies and feedback that are older are erased; None: nothing is.

    Raises:
      StoreError: the store cannot be opened; see `Database`.
    """

    def __init__(self, where: str | Path, key: str | None = None, days: float | None = None) -> None:
        self.sealer, self.days = Sealer(key), days
        self.database = Database(where, self.sealer, secrets.token_hex(16))
        self._turn = threading.Lock()

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def served(self, reply: ServedReply) -> None:
        """Remember a reply; a StoreError where it cannot be, or its id is taken."""
        try:
            self.twice(lambda session: self._serve(session, reply))
        except IntegrityError:
            raise StoreError(f"there is a reply {reply.id!r} already; give every reply an id of its own") from None

    def rate(self, feedback: Feedback, key: str | None = None) -> Feedback:
        """Remember what a user said of a reply; returns it with its id.

        Args:
          feedback: `id` may be empty.
          key: names the request: said again with the same key, it is the same feedback and is kept once.

        Raises:
          DataError: there is no such reply of this user, or the two replies do not answer the same history.
          Conflict: the key was used for something else.
        """
        over = None if feedback.over is None else plain(feedback.over)
        feedback = replace(feedback, user=plain(feedback.user), reply=plain(feedback.reply), over=over)
        return self.twice(lambda session: self._rate(session, feedback, key))

    def users(self) -> list[str]:
        """Ids of all users."""
        with self.database.reading() as session:
            return list(session.scalars(select(UserRow.id).order_by(UserRow.id)))

    def knows(self, user: str) -> bool:
        """Whether there is such a user."""
        with self.database.reading() as session:
            return session.get(UserRow, plain(user)) is not None

    @property
    def place(self) -> str:
        """Where the store is, without a password."""
        return self.database.named

    def owner(self, reply: str) -> str | None:
        """Whom a reply was given to."""
        with self.database.reading() as session:
            row = session.get(ReplyRow, plain(reply))
            return None if row is None else row.user

    def replies(self, user: str) -> list[ServedReply]:
        """A user's replies, oldest first."""
        with self.database.reading() as session:
            query = select(ReplyRow).where(ReplyRow.user == plain(user)).order_by(ReplyRow.created, ReplyRow.id)
            return [self._reply(row) for row in session.scalars(query)]

    def count_replies(self, user: str) -> int:
        """How many replies of a user are kept."""
        with self.database.reading() as session:
            query = select(func.count()).select_from(ReplyRow).where(ReplyRow.user == plain(user))
            return session.scalar(query) or 0

    def feedback(self, user: str) -> list[Feedback]:
        """What a user said of replies, oldest first."""
        with self.database.reading() as session:
            query = select(FeedbackRow).where(FeedbackRow.user == plain(user))
            return [self._feedback(row) for row in session.scalars(query.order_by(FeedbackRow.created, FeedbackRow.id))]

    def alias(self, user: str) -> str:
        """A name of a user that says nothing of its id: the same at every export of this store, and of no other."""
        salt = self.database.about["salt"].encode()
        return hmac.new(salt, plain(user).encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:16]

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session whose changes are on disk when the block has ended well; see `Database.writing`."""
        # Threads of one process wait here, in turn; SQLite's own waiting is a poll that can starve one of them.
        with self._turn, self.database.writing() as session:
            yield session

    def sweep(self, now: float | None = None) -> int:
        """Erase replies, with the feedback on them, that are older than `days`; returns how many."""
        if self.days is None:
            return 0
        before = (time.time() if now is None else now) - self.days * DAY
        with self.writing() as session:
            old = list(session.scalars(select(ReplyRow.id).where(ReplyRow.created < before)))
            session.execute(delete(ReplyRow).where(ReplyRow.created < before))
        if old:
            self.database.truncate_log()
        return len(old)

    def twice(self, work: Callable[[Session], T]) -> T:
        """WORK in a transaction; once more where another process was first with the same user or key."""
        try:
            with self.writing() as session:
                return work(session)
        except IntegrityError:
            with self.writing() as session:
                return work(session)

    def _serve(self, session: Session, reply: ServedReply) -> None:
        user = plain(reply.user)
        if session.get(UserRow, user) is None:
            session.add(UserRow(id=user, created=time.time()))
            session.flush()
        session.add(self._sealed(reply))

    def _rate(self, session: Session, feedback: Feedback, key: str | None) -> Feedback:
        known = select(FeedbackRow).where(FeedbackRow.user == feedback.user, FeedbackRow.key == key)
        if key is not None and (row := session.scalar(known)) is not None:
            before = self._feedback(row)
            if replace(feedback, id=before.id, created=before.created) != before:
                raise Conflict(f"the key {key!r} was used for other feedback; take a new one")
            return before
        both = (feedback.reply, feedback.over)
        replies = [self._own(session, id, feedback.user) for id in both if id is not None]
        if len({reply.history for reply in replies}) > 1 or len({reply.id for reply in replies}) < len(replies):
            raise DataError("the two replies are not two to the same history")
        made = replace(feedback, id=f"fb-{uuid.uuid4().hex}", created=feedback.created or time.time())
        text = None if made.text is None else self.sealer.seal(made.text)
        session.add(FeedbackRow(**{**asdict(made), "text": text}, key=key))
        return made

    def _own(self, session: Session, id: str, user: str) -> ServedReply:
        row = session.get(ReplyRow, id)
        if row is None or row.user != user:
            raise DataError(f"there is no reply {id!r}")
        return self._reply(row)

    def _sealed(self, reply: ServedReply) -> ReplyRow:
        seal = self.sealer.seal
        return ReplyRow(
            id=plain(reply.id), user=plain(reply.user), model=plain(reply.model), version=plain(reply.version),
            history=seal([(message.role, message.content) for message in reply.history]), text=seal(reply.text),
            drawn=seal({"action": reply.action, "mean": reply.mean}), sigma=reply.sigma, created=reply.created,
        )  # fmt: skip

    def _reply(self, row: ReplyRow) -> ServedReply:
        drawn = self.sealer.open(row.drawn)
        action, mean = (None if drawn[name] is None else tuple(drawn[name]) for name in ("action", "mean"))
        history = tuple(Message(role, content) for role, content in self.sealer.open(row.history))
        text = self.sealer.open(row.text)
        return ServedReply(
            row.id, row.user, row.model, row.version, history, text, action, mean, row.sigma, row.created
        )

    def _feedback(self, row: FeedbackRow) -> Feedback:
        kind: Kind = TypeAdapter(Kind).validate_python(row.kind)
        text = None if row.text is None else self.sealer.open(row.text)
        return Feedback(row.id, row.user, row.reply, kind, row.thumb, row.over, text, row.created)


def plain(id: str) -> str:
    """An id as every database takes it: whole characters, without NUL."""
    return id.encode("utf-8", "replace").decode().replace("\x00", "")
