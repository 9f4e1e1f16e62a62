"""A fresh store for each test, in each of the two databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from federation_audit.store.engine import Store
from tests.stores import open_store, sqlite_url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    postgres = request.getfixturevalue("postgres")
    return str(postgres.server.url(postgres.make_database("")))


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with open_store(database_url) as opened:
        yield opened
