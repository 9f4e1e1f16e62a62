"""The store's tables, brought to what this release needs; or the word that they are not.

Scripts run in one transaction that no other writer can be in: SQLite's own lock, or an advisory lock of PostgreSQL.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from federation_audit.store.engine import Store
from federation_audit.store.errors import SchemaTooNew, SchemaTooOld

_LOCK = 0x66656469  # any number that is ours


def migrate(store: Store) -> None:
    """Make the tables, or bring them up to date. Raises `SchemaTooNew` or another `StoreError`."""
    config = _config()
    with store.writing() as connection:
        if not store.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        _refuse_newer(store, connection, config)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def open_store(url: str) -> Store:
    """The store at `url`, its tables made or brought up to date.

    Raises ValueError where that is no URL of a database that we know, or a `StoreError`.
    """
    store = Store(url)
    migrate(store)
    return store


def check_schema(store: Store) -> None:
    """Raises `SchemaTooNew` or `SchemaTooOld` where the tables are not this release's."""
    config = _config()
    with store.reading() as connection:
        found = _refuse_newer(store, connection, config)
    if found != _head(config):
        raise SchemaTooOld(
            f"{store.name} has {'tables of an older fediwarden' if found else 'no tables yet'};"
            " `fediwarden audit record` makes them"
        )


def _refuse_newer(store: Store, connection: Connection, config: Config) -> str | None:
    found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaTooNew(
            f"{store.name} was migrated by a newer fediwarden (revision {found}, known here up to {_head(config)});"
            " upgrade this one, or restore the backup made before"
        )
    return found


def _head(config: Config) -> str | None:
    return ScriptDirectory.from_config(config).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
