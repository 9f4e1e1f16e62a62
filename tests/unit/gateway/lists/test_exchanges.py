"""Exchanges by the real fetchers of `threatexchange`, where it is installed (fediwarden[exchanges])."""

import importlib.util
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.lists.definition import ListDefinition
from gateway.lists.errors import SourceFailed
from gateway.lists.kinds import HashKind
from gateway.lists.sources import fetch_hashes

PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
MD5 = "d41d8cd98f00b204e9800998ecf8427e"

REQUIRED = "FEDIWARDEN_REQUIRE_EXCHANGES"
needs_it = pytest.mark.skipif(
    importlib.util.find_spec("threatexchange") is None and not os.environ.get(REQUIRED),
    reason="make exchanges; it needs a C++ compiler",
)


def fetch(source: str, most: int = 100) -> dict[str, list[str]]:
    hashes = fetch_hashes(ListDefinition(name="x", source=source), most=most).hashes
    return {kind.value: hashes.hexadecimal(kind) for kind in HashKind if len(hashes.rows[kind])}


def test_an_exchange_that_there_is_none_of_is_refused_with_those_there_are() -> None:
    with pytest.raises(SourceFailed, match="no exchange 'nowhere'; there are ncmec, stop_ncii"):
        fetch("exchange:nowhere")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "threatexchange"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "threatexchange", None)
    with pytest.raises(SourceFailed, match=r"fediwarden\[exchanges\]"):
        fetch("exchange:ncmec?environment=Industry")


@needs_it
def test_a_file_of_an_exchange_is_read_by_its_fetcher(tmp_path: Path) -> None:
    path = tmp_path / "signals.txt"
    path.write_text(f"pdq {PDQ}\nvideo_md5 {MD5}\nraw_text hello\n")
    assert fetch(f"exchange:local_file?filename={path}") == {"pdq": [PDQ], "md5": [MD5]}


@needs_it
def test_stop_ncii_is_read_page_by_page_and_what_people_have_withdrawn_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    withdrawn = "0" * 64
    pages = [
        [record(PDQ, "ImagePDQ"), record(withdrawn, "ImagePDQ"), record("x", "Text")],
        [record(MD5, "VideoMD5"), record(withdrawn, "ImagePDQ", "Withdrawn"), record("f" * 64, "ImagePDQ", "Deleted")],
    ]
    with stop_ncii(pages) as (address, asked):
        monkeypatch.setenv("TX_STOPNCII_KEYS", f"function-key,subscription-key,{address}/v1")
        assert fetch("exchange:stop_ncii") == {"pdq": [PDQ], "md5": [MD5]}
    assert asked == ["subscription-key"] * 2


@needs_it
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("exchange:ncmec?environment=Industry", "TX_NCMEC_CREDENTIALS"),
        ("exchange:stop_ncii", "TX_STOPNCII_KEYS"),
        ("exchange:fb_threatexchange?privacy_group=123", "TX_ACCESS_TOKEN"),
        ("exchange:tat", "PYTX_TAT_CREDENTIALS"),
        ("exchange:fb_threatexchange?privacy_group=many", "many"),
        ("exchange:ncmec?environment=Mars", "Mars"),
        ("exchange:ncmec?colour=red", "unknown option 'colour'; this exchange has: environment"),
        ("exchange:local_file", "filename"),
        ("exchange:local_file?filename=/nowhere/at/all", "No such file"),
    ],
)
def test_what_an_exchange_lacks_is_said(
    source: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("TX_NCMEC_CREDENTIALS", "TX_STOPNCII_KEYS", "TX_ACCESS_TOKEN", "PYTX_TAT_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SourceFailed) as failed:
        fetch(source)
    assert said in str(failed.value)


def record(value: str, kind: str, status: str = "Active") -> dict[str, object]:
    return {"lastModtimestamp": 1, "signalType": kind, "hashValue": value, "hashStatus": status, "caseNumbers": {}}


@contextmanager
def stop_ncii(pages: list[list[dict[str, object]]]) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that speaks StopNCII's protocol on loopback: its address, and the keys it was asked with."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Ocp-Apim-Subscription-Key"])
            page = int(parse_qs(urlsplit(self.path).query).get("nextPageToken", ["0"])[0])
            answer = {
                "count": len(pages[page]),
                "nextPageToken": str(page + 1),
                "nextSetTimestamp": 2,
                "hasMoreRecords": page + 1 < len(pages),
                "hashRecords": pages[page],
            }
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quietly."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()
