"""What is particular to S3-compatible stores; what they share with the others: test_files."""

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto")

from fediwarden.sweep.errors import SourceRefused
from fediwarden.sweep.opening import open_source
from fediwarden.sweep.settings import SweepSettings
from gateway.settings import TenantSettings
from tests.object_stores import running_s3


def test_an_s3_key_that_may_do_nothing_is_refused(tmp_path: Path) -> None:
    with running_s3(tmp_path, authorize=True) as store:
        source = open_source(
            store.source,
            SweepSettings(**store.settings | {"s3_secret": "wrong"}),
            tenant="default",
            of=TenantSettings(),
            quarantine=None,
        )
        with pytest.raises(SourceRefused, match=r"sweep\.s3_key_id"):
            asyncio.run(source.check())
