"""A sweep over the stand-in pict-rs, with a small gateway of the test's own; the real ones: tests/integration."""

import asyncio
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fediwarden.sweep.checkpoints import Checkpoints, object_id, sweep_id
from fediwarden.sweep.errors import GatewayAway, GatewayRefused, NobodyJudges, SourceAway
from fediwarden.sweep.judging import Judge
from fediwarden.sweep.pict_rs import PictRsSource
from fediwarden.sweep.settings import SweepSettings
from fediwarden.sweep.source import Body, StoredObject
from fediwarden.sweep.sweeping import Sweep, Watcher
from schemas.messages import SweepCheckpoint, SweepFinding, SweepFound, SweepMode, SweepOutcome
from tests.pict_rs import API_KEY, PictRsServer, running_pict_rs

PICTURE = b"\xff\xd8\xff" + bytes(5000)  # as a JPEG begins; nobody decodes it here
BAD = b"bad"
JPEG, PNG = 5, 7


class Gateway(ThreadingHTTPServer):
    """Answers POST /v1/scans: what ends with `BAD` is rejected. `posted` counts the sha256 of what came.

    With `waits` it hands an image on first; its verdict comes after `verdict_after` looks, if it is not `forgetful`.
    """

    def __init__(self) -> None:
        self.posted: Counter[str] = Counter()
        self.status = 200
        self.waits = False
        self.verdict_after = 0
        self.forgetful = False
        self.unjudgeable = ""
        self.unhurried: set[bool] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._send(200, {"alive": True})
            return
        if self.path == "/readyz":
            self._send(503, {"parts": {"scanners": {"ok": not self.server.waits}}})
            return
        self.server.verdict_after -= 1
        if self.server.verdict_after <= 0:
            self.server.waits = False
        if self.server.forgetful:
            self._send(404, {"error": {"message": "no scan of this id is remembered"}})
        else:
            verdict = None if self.server.waits or self.server.unjudgeable else {}
            self._send(200, {"verdict": verdict, "unjudgeable": self.server.unjudgeable})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.server.status != 200:
            error = {"error": {"message": "no"}}
            self._send(self.server.status, error)
            return
        self.server.unhurried.add(self.headers["prefer"] == "respond-async")
        if self.server.waits:
            self._send(202, {"scan_id": "scan-0", "sha256": hashlib.sha256(body).hexdigest()})
            return
        self.server.posted[hashlib.sha256(body).hexdigest()] += 1
        bad = body.endswith(BAD)
        answer = {
            "scan_id": f"scan-{len(self.server.posted)}",
            "decision": "reject" if bad else "accept",
            "accepted": not bad,
            "answered_by": "verdict",
            "reason": "",
            "rules": [{"name": "explicit"}] if bad else [],
        }
        if b"damaged" in body:
            self._send(422, answer | {"answered_by": "unreadable", "reason": "damaged: cut off"})
        else:
            self._send(200, answer)

    def _send(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Kept(Checkpoints):
    """A sweep's records in a dict, as a compacted topic has them. `fail_at`: the number of the write that dies."""

    def __init__(self, topic: dict[str, SweepCheckpoint | SweepFound]) -> None:
        super().__init__("test")
        self.topic = topic
        self.fail_at: int | None = None
        self.writes = 0
        for message in topic.values():
            if isinstance(message, SweepCheckpoint):
                self.standing = message
            else:
                self.found[message.object_id] = message

    async def _publish(self, message: SweepCheckpoint | SweepFound | None, key: str) -> None:
        self.writes += 1
        if self.writes == self.fail_at:
            raise KilledHere
        if message is None:
            self.topic.pop(key, None)
        else:
            self.topic[key] = type(message).model_validate(message.model_dump())


class KilledHere(Exception):
    """As kill -9 would: nothing after this is done."""


@contextmanager
def _gateway() -> Iterator[Gateway]:
    with Gateway() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with _gateway() as server:
        yield server


@pytest.fixture
def pict_rs(tmp_path: Path) -> Iterator[PictRsServer]:
    with running_pict_rs(tmp_path / "pict-rs") as server:
        yield server


def _sweep(
    pict_rs: PictRsServer,
    gateway: Gateway,
    kept: Kept,
    *,
    mode: SweepMode = SweepMode.REPORT,
    most_bytes: int = 1 << 20,
    page: int = 3,
    **settings: Any,
) -> Counter[str]:
    async def go() -> Counter[str]:
        source = PictRsSource(pict_rs.url, API_KEY, page=page)
        judge = Judge(gateway.url, None, rate=10_000, verdict_within_s=settings.get("verdict_within_s", 30))
        fast = SweepSettings(**{"patience_s": 0.1, **settings})
        sweep = Sweep(source, judge, kept, fast, mode=mode, most_bytes=most_bytes, watcher=Watcher())
        try:
            await sweep.run()
        finally:
            await judge.close()
            await source.close()
        return sweep.counts

    return asyncio.run(go())


def _fill(pict_rs: PictRsServer, good: int, bad: int) -> set[str]:
    """The sha256 of what is bad; among the rest is a text that pict-rs would never keep."""
    for number in range(good):
        pict_rs.files.keep(PICTURE + b"good%d" % number, JPEG)
    wrong = [PICTURE + b"%d" % number + BAD for number in range(bad)]
    for data in wrong:
        pict_rs.files.keep(data, JPEG)
    pict_rs.files.keep(b"a text", JPEG)
    return {hashlib.sha256(data).hexdigest() for data in wrong}


def _bad_of(kept: Kept) -> dict[str, SweepOutcome]:
    return {
        each.sha256.hex(): each.outcome
        for each in kept.found.values()
        if each.finding is SweepFinding.REJECTED and each.sha256
    }


def test_a_report_names_what_is_rejected_and_removes_nothing(pict_rs: PictRsServer, gateway: Gateway) -> None:
    bad = _fill(pict_rs, 7, 3)
    before = pict_rs.files.sha256s()
    kept = Kept({})
    counts = _sweep(pict_rs, gateway, kept)
    assert counts == {"accepted": 7, "rejected": 3, "skipped": 1, "listed": 11}
    assert _bad_of(kept) == dict.fromkeys(bad, SweepOutcome.LEFT)
    assert pict_rs.files.sha256s() == before and pict_rs.asked("/internal/purge") == 0
    assert set(gateway.posted.values()) == {1} and len(gateway.posted) == 10
    assert kept.standing is not None and kept.standing.finished_at and not kept.standing.position


def test_apply_removes_exactly_what_is_rejected(pict_rs: PictRsServer, gateway: Gateway) -> None:
    bad = _fill(pict_rs, 5, 4)
    before = pict_rs.files.sha256s()
    kept = Kept({})
    _sweep(pict_rs, gateway, kept, mode=SweepMode.APPLY)
    assert pict_rs.files.sha256s() == before - bad
    assert _bad_of(kept) == dict.fromkeys(bad, SweepOutcome.REMOVED)


@pytest.mark.parametrize("fail_at", range(1, 12))
def test_killed_at_any_write_the_same_command_comes_to_the_same_end(
    pict_rs: PictRsServer, gateway: Gateway, fail_at: int
) -> None:
    bad = _fill(pict_rs, 5, 3)
    before = pict_rs.files.sha256s()
    topic: dict[str, SweepCheckpoint | SweepFound] = {}
    killed = Kept(topic)
    killed.fail_at = fail_at
    try:
        _sweep(pict_rs, gateway, killed, mode=SweepMode.APPLY, concurrency=1)
    except KilledHere:
        assert fail_at <= killed.writes
    else:
        assert fail_at > killed.writes
    again = Kept(topic)
    _sweep(pict_rs, gateway, again, mode=SweepMode.APPLY, concurrency=1)
    assert pict_rs.files.sha256s() == before - bad
    assert _bad_of(Kept(topic)) == dict.fromkeys(bad, SweepOutcome.REMOVED)
    assert again.standing is not None and not again.standing.position


def test_the_next_run_judges_only_what_is_new(pict_rs: PictRsServer, gateway: Gateway) -> None:
    _fill(pict_rs, 7, 1)
    topic: dict[str, SweepCheckpoint | SweepFound] = {}
    _sweep(pict_rs, gateway, Kept(topic))
    gateway.posted.clear()
    pict_rs.files.keep(PICTURE + b"new", JPEG)
    counts = _sweep(pict_rs, gateway, Kept(topic))
    assert counts == {"accepted": 1, "listed": 1}
    assert len(gateway.posted) == 1
    assert len(_bad_of(Kept(topic))) == 1


def test_the_same_bytes_are_posted_once_and_removed_everywhere(pict_rs: PictRsServer, gateway: Gateway) -> None:
    for data in (PICTURE + BAD, PICTURE):
        for format_byte in (JPEG, PNG):
            pict_rs.files.keep(data, format_byte)
    counts = _sweep(pict_rs, gateway, Kept({}))
    assert counts == {"listed": 4, "duplicate": 2, "accepted": 2, "rejected": 2}
    assert set(gateway.posted.values()) == {1}
    gateway.posted.clear()
    _sweep(pict_rs, gateway, Kept({}), mode=SweepMode.APPLY)
    assert pict_rs.files.sha256s() == {hashlib.sha256(PICTURE).hexdigest()}
    # Before each removal it is asked, as a moderator may have spoken for the picture since.
    assert gateway.posted == {
        hashlib.sha256(PICTURE).hexdigest(): 1,
        hashlib.sha256(PICTURE + BAD).hexdigest(): 2,
    }


def test_what_cannot_be_judged_is_named_counted_and_never_removed(pict_rs: PictRsServer, gateway: Gateway) -> None:
    pict_rs.files.keep(PICTURE + b"damaged" + BAD, JPEG)
    pict_rs.files.keep(PICTURE + bytes(5000) + BAD, JPEG)
    gone = pict_rs.files.keep(PICTURE + b"away" + BAD, JPEG)
    place = pict_rs.files.place_of(gone)
    assert place is not None
    (place / gone).unlink()
    kept = Kept({})
    counts = _sweep(pict_rs, gateway, kept, mode=SweepMode.APPLY, most_bytes=len(PICTURE) + 1000)
    assert counts == {"damaged": 1, "too_large": 1, "gone": 1, "listed": 3}
    assert {each.finding for each in kept.found.values()} == {SweepFinding.DAMAGED, SweepFinding.TOO_LARGE}
    assert len(pict_rs.files.places()) == 3


@pytest.mark.parametrize("forgetful", [False, True])
def test_a_verdict_is_waited_for_also_where_the_gateway_is_another_one_meanwhile(
    pict_rs: PictRsServer, gateway: Gateway, forgetful: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fediwarden.sweep.judging._FORGOTTEN_S", 0.2)
    bad = _fill(pict_rs, 1, 1)
    gateway.waits, gateway.verdict_after, gateway.forgetful = True, 3, forgetful
    kept = Kept({})
    counts = _sweep(pict_rs, gateway, kept)
    assert gateway.unhurried == {True}
    assert (counts["accepted"], counts["rejected"], counts["unjudged"]) == (1, 1, 0)
    assert set(_bad_of(kept)) == bad


def test_what_no_scanner_can_judge_is_not_waited_for(pict_rs: PictRsServer, gateway: Gateway) -> None:
    _fill(pict_rs, 0, 2)
    gateway.waits, gateway.verdict_after, gateway.unjudgeable = True, 10**6, "unjudgeable: no scanner can judge it"
    kept = Kept({})
    assert _sweep(pict_rs, gateway, kept, mode=SweepMode.APPLY) == {"damaged": 2, "skipped": 1, "listed": 3}
    assert {each.detail for each in kept.found.values()} == {gateway.unjudgeable}
    assert len(pict_rs.files.places()) == 3


def test_nothing_is_removed_or_passed_over_when_nobody_judges(pict_rs: PictRsServer, gateway: Gateway) -> None:
    _fill(pict_rs, 0, 12)
    before = pict_rs.files.sha256s()
    gateway.waits, gateway.verdict_after = True, 10**6
    kept = Kept({})
    with pytest.raises(NobodyJudges, match=r"sweep\.verdict_within_s"):
        _sweep(pict_rs, gateway, kept, mode=SweepMode.APPLY, verdict_within_s=0.05, page=20)
    assert pict_rs.files.sha256s() == before
    assert kept.standing is None
    gateway.waits = False
    assert _sweep(pict_rs, gateway, Kept(kept.topic), mode=SweepMode.APPLY)["rejected"] == 12


@pytest.mark.parametrize(("status", "error"), [(401, GatewayRefused), (403, GatewayRefused), (503, GatewayAway)])
def test_a_gateway_that_refuses_or_stays_full_ends_the_sweep_where_it_is(
    pict_rs: PictRsServer, gateway: Gateway, status: int, error: type[Exception]
) -> None:
    _fill(pict_rs, 2, 1)
    gateway.status = status
    kept = Kept({})
    with pytest.raises(error, match=gateway.url):
        _sweep(pict_rs, gateway, kept)
    assert kept.topic == {}
    gateway.status = 200
    assert _sweep(pict_rs, gateway, kept)["listed"] == 4


def test_a_pict_rs_that_goes_away_in_the_middle_ends_it_and_it_goes_on(pict_rs: PictRsServer, gateway: Gateway) -> None:
    bad = _fill(pict_rs, 9, 2)
    topic: dict[str, SweepCheckpoint | SweepFound] = {}

    class Breaking(Kept):
        async def note(self, checkpoint: SweepCheckpoint) -> None:
            await super().note(checkpoint)
            pict_rs.behave("drop", everywhere=True)

    with pytest.raises(SourceAway, match="no answer"):
        _sweep(pict_rs, gateway, Breaking(topic))
    pict_rs.behave("well")
    half = Kept(topic)
    assert half.standing is not None and half.standing.position
    counts = _sweep(pict_rs, gateway, half)
    assert counts["listed"] == 12 and set(_bad_of(half)) == bad
    assert set(gateway.posted.values()) == {1}


def test_no_more_than_the_rate_is_posted(gateway: Gateway) -> None:
    async def go() -> float:
        judge = Judge(gateway.url, None, rate=20, verdict_within_s=1)
        clock = asyncio.get_running_loop().time
        with Body(1 << 20) as body:
            body.write(PICTURE)
            body.finish()
            begun = clock()
            await asyncio.gather(*(judge.judge(body) for _ in range(11)))
            took = clock() - begun
        await judge.close()
        return took

    assert asyncio.run(go()) >= 0.5


def test_ids_tell_what_a_sweep_is_about() -> None:
    ids = {
        sweep_id("pict-rs a", "t", SweepMode.REPORT, None),
        sweep_id("pict-rs a", "t", SweepMode.APPLY, None),
        sweep_id("pict-rs a", "u", SweepMode.APPLY, None),
        sweep_id("pict-rs b", "t", SweepMode.REPORT, None),
        sweep_id("pict-rs a", "t", SweepMode.QUARANTINE, "q"),
        sweep_id("pict-rs a", "t", SweepMode.QUARANTINE, "r"),
    }
    assert len(ids) == 6
    assert object_id("a\udcff") != object_id("a")


def test_a_listed_object_with_a_fault_is_unreadable(pict_rs: PictRsServer, gateway: Gateway) -> None:
    class Faulty(PictRsSource):
        async def page(self, position: tuple[str, ...], marks: tuple[str, ...]):  # type: ignore[no-untyped-def]
            page = await super().page(position, marks)
            fault = StoredObject("x", "folder", fault="this folder cannot be listed: PermissionError")
            return type(page)((*page.objects, fault), page.position, page.marks, page.last)

    _fill(pict_rs, 1, 0)

    async def go() -> Kept:
        kept = Kept({})
        source = Faulty(pict_rs.url, API_KEY)
        judge = Judge(gateway.url, None, rate=1000, verdict_within_s=1)
        settings = SweepSettings(patience_s=0.1)
        sweep = Sweep(source, judge, kept, settings, mode=SweepMode.APPLY, most_bytes=1 << 20, watcher=Watcher())
        await sweep.run()
        assert sweep.counts["unreadable"] == 1 and sweep.counts["accepted"] == 1
        await judge.close()
        await source.close()
        return kept

    (found,) = asyncio.run(go()).found.values()
    assert (found.finding, found.path) == (SweepFinding.UNREADABLE, "folder")
