"""From a database URL to the database of the accounts, its tables made."""

from pathlib import Path

from sqlalchemy import create_engine, event, exc
from sqlalchemy.engine import make_url

from federation_audit.accounts.database import EngineDatabase
from federation_audit.accounts.tables import METADATA

_CONNECT_S = 10


class DatabaseUnusable(Exception):
    """The database cannot be opened; the message names the setting and the remedy."""


def open_database(url: str) -> EngineDatabase:
    """The database at `url` (SQLite or PostgreSQL), with the tables of accounts. Raises `DatabaseUnusable`."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise DatabaseUnusable("audit.database: a file is needed: sqlite:////absolute/path/audit.sqlite")
            path = Path(parsed.database)
            engine = create_engine(parsed, connect_args={"check_same_thread": False})

            @event.listens_for(engine, "do_connect")
            def _prepare_file(*_: object) -> None:
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch(mode=0o600)

        elif backend in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
            engine = create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": _CONNECT_S})
        else:
            raise DatabaseUnusable(f"audit.database: sqlite:// or postgresql:// is needed, not {backend}://")
        database = EngineDatabase(engine)
        with database.writing() as connection:
            METADATA.create_all(connection)
    except (exc.SQLAlchemyError, OSError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise DatabaseUnusable(
            f"the audit's database cannot be used ({cause}): check the setting audit.database"
        ) from error
    return database
