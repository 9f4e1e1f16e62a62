"""What accounts need of a database: a transaction to read in, and one to write in."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, event


class Database(Protocol):
    """A database that several threads may use."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that reads."""
        ...

    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction that writes: committed at the end, rolled back by any exception."""
        ...


_BUSY_MS = 30_000


class EngineDatabase:
    """The database of `engine` (SQLite or PostgreSQL), which this class sets up: give it a fresh one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that reads."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes."""
        with self._engine.connect() as connection:
            writer = connection.execution_options(fediwarden_writes=True)
            with writer.begin():
                yield writer


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: pysqlite would only before some statements
    # NORMAL: a power cut may cost the last moments, nothing else.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={_BUSY_MS}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("fediwarden_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
