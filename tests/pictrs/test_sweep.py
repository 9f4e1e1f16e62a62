"""A sweep over a real pict-rs that was filled before it had a fediwarden."""

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fediwarden.sweep.pict_rs import PictRsSource
from tests.kafka import find_free_ports
from tests.pictrs.pictrs import API_KEY, PictRs
from tests.pictrs.uploads import make_upload
from tests.pictrs.warden import Warden

pytestmark = [pytest.mark.pictrs, pytest.mark.kafka, pytest.mark.timeout(480)]

KINDS = ("jpeg", "png", "gif-animated", "webp", "mp4-h264")


class _LetsAllIn(BaseHTTPRequestHandler):
    """The validation of a server that judges nothing."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()


@pytest.fixture
def unjudging() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _LetsAllIn) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def _sweep(warden: Warden, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "fediwarden", "sweep", "pict-rs", "--rate", "50", *arguments],
        env=warden.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


async def _walk(address: str) -> list[str]:
    """The hashes of all that is stored, each page asked for by a new process, as it were."""
    found: list[str] = []
    position: tuple[str, ...] = ()
    while True:
        source = PictRsSource(address, API_KEY, page=4)
        page = await source.page(position, ())
        await source.close()
        found += [each.key for each in page.objects]
        if page.last:
            return found
        position = page.position


@pytest.mark.long
@pytest.mark.usefixtures("built")
def test_what_was_stored_unjudged_is_reported_then_purged_with_every_alias(tmp_path: Path, unjudging: str) -> None:
    port = find_free_ports(1)
    settings = {
        "FEDIWARDEN_TENANTS": json.dumps(
            {
                "default": {"pict_rs": f"http://127.0.0.1:{port}", "pict_rs_api_key": API_KEY},
                "sweep": {"key": "0123456789abcdef"},
            }
        )
    }
    with PictRs(tmp_path / "pict-rs", port, unjudging) as pictrs:
        bad = {kind: make_upload(kind, rejected=True, seed=3000 + n) for n, kind in enumerate(KINDS)}
        good = {kind: make_upload(kind, rejected=False, seed=4000 + n) for n, kind in enumerate(KINDS)}
        bad_aliases = [pictrs.upload(data).alias for data in bad.values() for _ in range(2)]
        good_aliases = [pictrs.upload(data).alias for data in good.values()]
        stored_bad = {hashlib.sha256(pictrs.original(alias).content).hexdigest() for alias in bad_aliases}
        everything = pictrs.known_hashes()
        walked = asyncio.run(_walk(f"http://127.0.0.1:{port}"))
        assert len(walked) == len(everything) > 8 and {each[:64] for each in walked} == everything
        with Warden(tmp_path / "warden", settings=settings) as warden:
            refused = _sweep(warden, "--tenant", "default")
            assert refused.returncode == 2 and "--as" in refused.stderr

            reported = _sweep(warden, "--tenant", "default", "--as", "sweep", "--json")
            assert reported.returncode == 1, reported.stderr
            found: dict[str, Any] = json.loads(reported.stdout)
            assert {each["sha256"] for each in found["found"] if each["finding"] == "rejected"} == stored_bad
            assert found["counts"]["listed"] == len(everything)
            assert pictrs.known_hashes() == everything

            applied = _sweep(warden, "--tenant", "default", "--apply")
            assert applied.returncode == 0, applied.stdout + applied.stderr
            assert pictrs.known_hashes() == everything - stored_bad
            assert {pictrs.original(alias).status_code for alias in bad_aliases} == {404}
            assert {pictrs.original(alias).status_code for alias in good_aliases} == {200}
