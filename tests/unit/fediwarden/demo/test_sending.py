"""What the demo does when the services are busy, late, or refuse: a small HTTP server of the test's own answers."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from federation_audit.intake import Told
from fediwarden.demo.sending import Outbox, SendingFailed
from fediwarden.demo.world import make_week

POSTS = [post for post in make_week() if post.instance][:6]
TOKEN = "a token of the demo"
Answer = tuple[int, dict[str, Any]]
ACCEPTED: Answer = (200, {"answered_by": "verdict", "accepted": True, "scan_id": "s"})
LATE: Answer = (200, {"answered_by": "deadline", "accepted": True, "scan_id": "s"})


@contextmanager
def served(answer: Callable[[str, bytes], Answer]) -> Iterator[str]:
    """The address of a server that answers with what `answer` makes of a path and a body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, body = answer(self.path, self.rfile.read(int(self.headers.get("content-length", 0))))
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(address: str) -> Outbox:
    outbox = Outbox(gateway=address, pages=address, origins_token=TOKEN, seed=1, now=datetime(2026, 11, 14, tzinfo=UTC))
    shown: list[object] = []
    asyncio.run(outbox.send(POSTS, shown.append))
    assert shown == outbox.sent
    return outbox


def test_every_image_goes_out_once_and_every_origin_is_one_that_the_audit_takes():
    told: list[dict[str, Any]] = []

    def answer(path: str, body: bytes) -> Answer:
        if path == "/v1/origins":
            told.extend(json.loads(body)["origins"])
            return 202, {"accepted": 1, "notes": []}
        return ACCEPTED

    with served(answer) as address:
        outbox = send(address)
    assert {each.post for each in outbox.sent} == set(POSTS)
    assert {each["sha256"] for each in told} == {each.sha256.hex() for each in outbox.sent}
    for each in told:
        Told.model_validate(each)


def test_a_busy_gateway_is_asked_again():
    asked: list[str] = []

    def answer(path: str, body: bytes) -> Answer:
        asked.append(path)
        return (503, {"error": "busy"}) if len(asked) < 3 else ACCEPTED

    with served(answer) as address:
        assert len(send(address).sent) == len(POSTS)


def test_a_verdict_that_is_late_is_waited_for():
    reports: list[str] = []

    def answer(path: str, body: bytes) -> Answer:
        if path.startswith("/v1/scans/"):
            reports.append(path)
            return 200, {"verdict": {"decision": "accept"} if len(reports) > len(POSTS) else None}
        return LATE

    with served(answer) as address:
        assert send(address).answers == {"deadline": len(POSTS)}
    assert len(reports) > len(POSTS)


def test_a_refusal_ends_it_with_the_services_own_words():
    with (
        served(lambda path, body: (401, {"error": {"message": "no tenant has this key"}})) as address,
        pytest.raises(SendingFailed, match="no tenant has this key"),
    ):
        send(address)
