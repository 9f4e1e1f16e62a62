"""Opening the store: one engine, a transaction for reading or for writing, errors that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, exc
from sqlalchemy.engine import URL, make_url

from federation_audit.store.errors import StoreRefused, StoreUnavailable

_BUSY_S = 30.0
_READING_CACHE_KB, _WRITING_CACHE_KB = 8_192, 65_536
"""SQLite's own, of each connection. A reader's is void when somebody else has written: the system has the file's."""
_CONNECT_S = 10
_NO_RIGHT = ("28", "42501", "3D000")  # SQLSTATE: invalid authorization, insufficient privilege, no such database
_NO_ENTRANCE = ("authentication failed", "does not exist", "not permitted to log in", "no pg_hba.conf entry")
_TOO_LARGE = "54"  # SQLSTATE: program limit exceeded: waiting does not help
_WAIT_FOR_IT = ("locked", "busy", "disk i/o", "interrupted")


class Store:
    """An audit store at a database URL. A context manager; safe to use from several threads."""

    def __init__(self, url: str) -> None:
        self._url = parse_url(url)
        self._engine = _make_engine(self._url)

    @property
    def name(self) -> str:
        """The URL without its password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file."""
        return self._url.get_backend_name() == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that reads; what it sees does not change while it lasts. Raises `StoreError`."""
        with self._translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self, *, durably: bool = False) -> Iterator[Connection]:
        """A transaction that writes: committed at the end, rolled back by any exception. `durably`: it outlives a power
        cut right after. Raises `StoreError`."""
        with self._translated(), self._engine.connect() as connection:
            writer = connection.execution_options(fediwarden_writes=True, fediwarden_durably=durably)
            with writer.begin():
                yield writer

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except exc.DBAPIError as error:
            raise _as_ours(self.name, error) from error
        except OSError as error:
            raise StoreRefused(f"{self.name}: {error.strerror or error}; check the setting audit.database") from error


def parse_url(url: str) -> URL:
    """`url` with the driver that we bring. Raises ValueError where it is none, or of another database."""
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise ValueError("no database URL, such as sqlite:////var/lib/fediwarden/audit.sqlite") from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ValueError("a file is needed: sqlite:////absolute/path/audit.sqlite")
        return parsed.set(drivername="sqlite")
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    raise ValueError(f"sqlite:// or postgresql:// is needed, not {backend}://")


def _make_engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        engine = create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": _CONNECT_S})
        event.listen(engine, "begin", _begin_postgresql)
        return engine
    assert url.database is not None
    engine = create_engine(url, connect_args={"timeout": _BUSY_S, "check_same_thread": False})
    path = Path(url.database)

    @event.listens_for(engine, "do_connect")
    def _prepare_file(*_: object) -> None:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)

    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: pysqlite would only before some statements
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",  # a power cut may cost the last transactions, with their offsets: they are read again
        "temp_store=MEMORY",
        "secure_delete=ON",  # what is forgotten is overwritten
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    writes = options.get("fediwarden_writes", False)
    connection.exec_driver_sql(f"PRAGMA cache_size=-{_WRITING_CACHE_KB if writes else _READING_CACHE_KB}")
    if writes:  # it cannot be changed within a transaction
        connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if options.get('fediwarden_durably') else 'NORMAL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    if not connection.get_execution_options().get("fediwarden_writes", False):
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def _as_ours(name: str, error: exc.DBAPIError) -> Exception:
    cause = error.orig
    said = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    state = getattr(cause, "sqlstate", None) or ""
    # psycopg names no state when it cannot connect at all.
    refused = state.startswith(_NO_RIGHT) or (not state and any(word in said for word in _NO_ENTRANCE))
    if refused or "readonly" in said or "unable to open" in said or "not a database" in said:
        return StoreRefused(
            f"{name}: {said}; check the setting audit.database, and that we may read, write and create tables there"
        )
    passing = error.connection_invalidated or any(word in said.lower() for word in _WAIT_FOR_IT)
    fault = said.startswith("no such") or state.startswith(_TOO_LARGE)
    if passing or (isinstance(error, exc.OperationalError) and not fault):
        return StoreUnavailable(f"{name} does not answer: {said}")
    return error
