"""The database below the store: opened once, every write whole and on disk when it returns.

Owns connections, transactions and what their failures are called. Knows nothing of users. SQLite in a file by default
(WAL, synced at every commit, deleted content overwritten), or PostgreSQL by a URL of SQLAlchemy's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from pamdp.errors import StoreError
from pamdp.serve.sealing import Sealer
from pamdp.serve.tables import SCHEMA, About, Table

BUSY_MS = 5000
"""How long a write waits for another process before the store is called busy."""


class Database:
    """Sessions on one database.

    Args:
      where: a file of SQLite, made if it is not there, or a URL such as postgresql+psycopg://HOST/NAME.
      sealer: of the texts.
      salt: what users' aliases are made with, where the database is new.

    Attributes:
      named: the place without a URL's password.

    Raises:
      StoreError: it cannot be opened, is no store, is of another version, or was made with another key.
    """

    def __init__(self, where: str | Path, sealer: Sealer, salt: str) -> None:
        self.named, self.sealer = str(where), sealer
        try:
            if "://" in self.named:
                # A URL may hold a password, in its query too, and nothing of it is shown before it was read.
                asked, self.named = self.named, "the URL of store="
                url = make_url(asked)
                if "@" in (url.host or ""):
                    raise ArgumentError("a password's @ is written %40")
                shown = url.difference_update_query(["password", "sslpassword"])
                self.named = shown.render_as_string(hide_password=True)
            else:
                url = make_url(f"sqlite:///{self.named}")
            self.engine = _connected(url)
            self._make(salt)
        except ValueError:  # of a port that is no number, which may be part of a password
            raise StoreError(
                f"{self.named} cannot be read; write :, @ and / of a password as %3A, %40 and %2F"
            ) from None
        except (ArgumentError, ImportError) as error:
            how = "name a file, or postgresql+psycopg://... with `pip install 'pamdp[postgres]'`"
            raise StoreError(f"{self.named} is no place of a store: {_line(error)}; {how}") from error
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"{self.named} cannot be opened: {_line(error)}; is it a store?") from error
        self.about = self._checked()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that sees one state of the database and changes nothing."""
        with self._session(immediate=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session whose changes are on disk, all of them, when the block has ended well; else none is made.

        Raises:
          StoreError: the database is busy, full, or fails in another way.
        """
        with self._session(immediate=True) as session:
            yield session
            session.commit()

    def truncate_log(self) -> None:
        """Put SQLite's log back into the file, so that nothing erased stays in it; readers may keep it for a while."""
        if self._is_sqlite:
            with suppress(DBAPIError), self.engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _session(self, immediate: bool) -> Iterator[Session]:
        try:
            # SQLite's readers see one state anyway, PostgreSQL's by this level.
            level = {} if immediate or self._is_sqlite else {"isolation_level": "REPEATABLE READ"}
            with Session(self.engine.execution_options(immediate=immediate, **level)) as session:
                yield session
        except IntegrityError:
            raise
        except (DBAPIError, OSError) as error:
            raise StoreError(f"{self.named} does not take this now: {_line(error)}; try again") from error

    @property
    def _is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    def _is_new(self) -> bool:
        with self.engine.connect() as connection:
            return not self.engine.dialect.has_table(connection, About.__tablename__)

    def _make(self, salt: str) -> None:
        try:
            if self._is_new():
                self._make_tables(salt)
        except DBAPIError:
            if self._is_new():  # else another process was faster, which PostgreSQL says by failing
                raise

    def _make_tables(self, salt: str) -> None:
        with Session(self.engine.execution_options(immediate=True)) as session:
            Table.metadata.create_all(session.connection())
            if session.get(About, "schema") is None:  # unless another process was faster
                values = {"schema": str(SCHEMA), "salt": salt, "sealed": str(int(self.sealer.encrypts))}
                values["seal"] = self.sealer.seal("pamdp")
                session.add_all(About(name=name, value=value) for name, value in values.items())
            session.commit()

    def _checked(self) -> dict[str, str]:
        with self.reading() as session:
            about = {row.name: row.value for row in session.scalars(select(About))}
        if about.get("schema") != str(SCHEMA):
            raise StoreError(
                f"{self.named} has tables of version {about.get('schema', 'none')}, this pamdp those of version "
                f"{SCHEMA}; use the pamdp that wrote it, export there, or name a new file"
            )
        if about["sealed"] != str(int(self.sealer.encrypts)):
            made = "encrypted; give its key" if about["sealed"] == "1" else "made without encryption; leave the key out"
            raise StoreError(f"{self.named} was {made}, or name a new file")
        try:
            self.sealer.open(about["seal"])
        except StoreError:
            raise StoreError(f"{self.named} was encrypted with another key; give that one") from None
        return about


def _connected(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        # A server that no longer answers is given up in seconds, not when TCP does so.
        alive = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 2, "tcp_user_timeout": 10_000}
        waits = {"connect_timeout": 5, **alive} if url.get_backend_name() == "postgresql" else {}
        engine = create_engine(url, connect_args=waits, pool_pre_ping=True, max_overflow=-1, hide_parameters=True)
        if engine.dialect.name == "postgresql":
            event.listen(engine, "connect", _bound_waits)
        return engine
    busy = {"timeout": BUSY_MS / 1000, "check_same_thread": False}
    # Errors would quote what was to be written, and end up in a log.
    engine = create_engine(url, connect_args=busy, poolclass=QueuePool, max_overflow=-1, hide_parameters=True)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _: object) -> None:
    connection.isolation_level = None  # `_begin` begins: sqlite3 alone would begin too late for IMMEDIATE
    for pragma in (
        "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}", "secure_delete=ON",
    ):  # fmt: skip
        connection.execute(f"PRAGMA {pragma}")


def _bound_waits(connection: Any, _: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {BUSY_MS}")
    connection.commit()


def _begin(connection: Connection) -> None:
    # A transaction that begins to write after it read is refused at once where somebody else wrote, however long the
    # others would have taken; one that begins as a writer waits for its turn.
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())[:200]
