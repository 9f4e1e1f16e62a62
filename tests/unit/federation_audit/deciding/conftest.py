"""A fresh store for each test: SQLite, and the PostgreSQL of the tests where there is one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from federation_audit.store.engine import Store
from tests.stores import open_store, sqlite_url


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(sqlite_url(tmp_path)) as opened:
        yield opened
