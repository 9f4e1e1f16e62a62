"""One fediwarden and one pict-rs for all tests of this folder."""

import os
from collections.abc import Iterator

import pytest

from tests.kafka import find_free_ports
from tests.pictrs.pictrs import PictRs, program_folder
from tests.pictrs.warden import Warden

REQUIRED = "FEDIWARDEN_REQUIRE_PICTRS"
"""Set by `make test-pictrs`, which has built pict-rs: then its absence is a failure."""


@pytest.fixture(scope="session")
def built() -> None:
    """Skips where there is no pict-rs."""
    if not (program_folder() / "pict-rs").exists() and not os.environ.get(REQUIRED):
        pytest.skip("pict-rs is not built: make test-pictrs")


@pytest.fixture(scope="module")  # no longer than it is needed: at rest it takes a tenth of a core
def warden(built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warden]:
    with Warden(tmp_path_factory.mktemp("warden")) as warden:
        yield warden


@pytest.fixture(scope="module")
def pictrs(
    warden: Warden, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[PictRs]:
    folder, fetches = tmp_path_factory.mktemp("pictrs"), getattr(request.module, "FETCHES_LOCALLY", False)
    with PictRs(folder, find_free_ports(1), warden.validation, fetches_locally=fetches) as pictrs:
        yield pictrs
