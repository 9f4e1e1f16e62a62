"""A fresh store for each test. Another database: give its URL here, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from federation_audit.store.engine import Store
from tests.stores import open_store, sqlite_url


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """An empty database."""
    return sqlite_url(tmp_path)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with open_store(database_url) as opened:
        yield opened
