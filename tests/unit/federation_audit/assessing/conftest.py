"""A fresh store for each test, on each database that we support."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from federation_audit.store.engine import Store
from tests.stores import open_store, sqlite_url


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = sqlite_url(tmp_path)
    if request.param == "postgresql":
        postgres = request.getfixturevalue("postgres")
        url = postgres.server.url(postgres.make_database(""))
    with open_store(url) as opened:
        yield opened
