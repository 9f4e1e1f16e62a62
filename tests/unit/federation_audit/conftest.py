"""A fresh store for each test, in each of the two databases."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from federation_audit.store.engine import Store
from tests.postgres import Postgres
from tests.stores import open_store, sqlite_url

_TEMPLATE = "audit_tables"


@pytest.fixture(scope="session")
def numbers(postgres: Postgres) -> Iterator[int]:
    """For the names of databases; the template that they are copied from is made."""
    postgres.server.execute(f"CREATE DATABASE {_TEMPLATE}")
    with open_store(postgres.server.url(_TEMPLATE)):
        pass
    return count()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of this test's own: in SQLite an empty one, in PostgreSQL one with tables (a copy takes no time)."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    numbers: Iterator[int] = request.getfixturevalue("numbers")
    postgres: Postgres = request.getfixturevalue("postgres")
    name = f"audit{next(numbers)}"
    postgres.server.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
    return postgres.server.url(name)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with open_store(database_url) as opened:
        yield opened
