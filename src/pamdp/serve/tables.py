"""The tables of the store. What is text of users, or comes of it, is sealed (sealing.py); ids are not.

Owns columns and how they hang together: a user's row goes with all that hangs on it. Knows nothing of what is done with
them (store.py, profiles.py, export.py).
"""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = 1
"""Version of these tables; another one is refused when a store is opened."""


class Table(DeclarativeBase):
    """Base of all tables."""


class About(Table):
    """What is said of the store itself: `schema`, `salt` of users' aliases, `seal`, a value sealed with its key."""

    __tablename__ = "about"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class UserRow(Table):
    """A user; `inferred_*` say when the profile was inferred last (0: never), and from how many messages."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(primary_key=True)
    created: Mapped[float]
    inferred_at: Mapped[float] = mapped_column(default=0.0)
    inferred_from: Mapped[int] = mapped_column(default=0)


def _of_user() -> Mapped[str]:
    return mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)


class ReplyRow(Table):
    """A served reply; `history`, `text` and `drawn` (action and mean) are sealed."""

    __tablename__ = "replies"
    __table_args__ = (Index("replies_by_time", "user", "created"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    user: Mapped[str] = _of_user()
    model: Mapped[str]
    version: Mapped[str]
    history: Mapped[str] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)
    drawn: Mapped[str] = mapped_column(Text)
    sigma: Mapped[float]
    created: Mapped[float]


class FeedbackRow(Table):
    """What a user said of a reply: `kind` is thumb (with `thumb`), preferred (over `over`) or correction (`text`)."""

    __tablename__ = "feedback"
    __table_args__ = (UniqueConstraint("user", "key"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    user: Mapped[str] = _of_user()
    reply: Mapped[str] = mapped_column(ForeignKey("replies.id", ondelete="CASCADE"), index=True)
    over: Mapped[str | None] = mapped_column(ForeignKey("replies.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str]
    thumb: Mapped[int | None]
    text: Mapped[str | None] = mapped_column(Text)
    key: Mapped[str | None]
    created: Mapped[float]


class EntryRow(Table):
    """A statement of a user's profile.

    `statement` and `cited` (the messages it rests on) are sealed; `was` is a digest of the finding that it came from,
    so that what a user changed or took out does not come back; `removed` ones are kept for that alone, and are empty.
    """

    __tablename__ = "profile"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    user: Mapped[str] = _of_user()
    field: Mapped[str]
    statement: Mapped[str] = mapped_column(Text)
    confidence: Mapped[float]
    cited: Mapped[str] = mapped_column(Text)
    was: Mapped[str | None]
    edited_by: Mapped[str | None]
    removed: Mapped[bool] = mapped_column(default=False)
    created: Mapped[float]


class VersionRow(Table):
    """A policy version: where its run is, in which space it acts, and how many of its users were erased since."""

    __tablename__ = "versions"

    id: Mapped[str] = mapped_column(primary_key=True)
    run: Mapped[str]
    space: Mapped[str]
    created: Mapped[float]
    erased: Mapped[int] = mapped_column(default=0)


class LearnedRow(Table):
    """A policy version learned from a user."""

    __tablename__ = "learned"

    version: Mapped[str] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True)
    user: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
