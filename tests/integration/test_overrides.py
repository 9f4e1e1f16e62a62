"""The word of a moderator on a real Kafka: in two gateways, over HTTP, on the command line, in the enforcer."""

import asyncio
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from PIL import Image
from pydantic import SecretStr

from gateway.enforcement.pict_rs import PictRs
from gateway.overrides.editor import OverrideEditor, ScanUnknown, read_request
from gateway.overrides.memory import Overrides
from schemas.broker import BrokerSettings, Producer
from schemas.clock import now_ms
from schemas.messages import (
    AnsweredBy,
    AnswerGiven,
    Decision,
    EnforcementOutcome,
    ImageSubmitted,
    OverrideSet,
    Stage,
    Verdict,
)
from schemas.topics import ANSWERS, OVERRIDES, SCANNERS, VERDICTS
from tests import pictures
from tests.gateways import RunningGateway, running_gateway, wait_for
from tests.integration.test_enforcer import JPEG, enforcing, judge, observing, pict_rs, tenant, uncommitted, verdict
from tests.pict_rs import PictRsServer
from tests.responder import MODELS, Responder, answers_given, make_verdict
from tests.topics import read_topic
from tests.unit.schemas.samples import SAMPLES

__all__ = ["pict_rs"]
pytestmark = pytest.mark.kafka

PICT_RS = "/api/v1/scan/IPADDR"
TOKEN = "a-token-of-the-admins"
ABSENT, ALLOWED = EnforcementOutcome.ABSENT, EnforcementOutcome.ALLOWED
FAILED, REMOVED = EnforcementOutcome.FAILED, EnforcementOutcome.REMOVED


def post(running: RunningGateway, image: bytes, path: str = PICT_RS) -> dict[str, Any]:
    return httpx.post(f"{running.url}{path}", content=image, timeout=30).json()


def admin(running: RunningGateway, method: str, path: str = "", token: str = TOKEN, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.request(method, f"{running.url}/v1/overrides{path}", headers=headers, timeout=30, **more)


def edit(kafka: BrokerSettings, **fields: object) -> list[OverrideSet]:
    """Set an override as the command line does."""

    async def go() -> list[OverrideSet]:
        async with Producer(kafka, client_id="test") as producer:
            request = read_request({"set_by": "alice", "reason": "a painting", **fields})
            return [placed.override for placed in await OverrideEditor(kafka, producer).set(request)]

    return asyncio.run(go())


def take_back(kafka: BrokerSettings, *overrides: OverrideSet) -> None:
    async def go() -> None:
        async with Producer(kafka, client_id="test") as producer:
            for each in overrides:
                await OverrideEditor(kafka, producer).remove(each.override_id)

    asyncio.run(go())


def publish(kafka: BrokerSettings, *messages: Verdict | AnswerGiven) -> None:
    async def go() -> None:
        async with Producer(kafka, client_id="test") as producer:
            for each in messages:
                topic = VERDICTS if isinstance(each, Verdict) else ANSWERS
                await producer.publish(topic, each, key=each.sha256)

    asyncio.run(go())


def until_known(count: int, *gateways: RunningGateway) -> None:
    """Wait until each of `gateways` has so many overrides in memory."""
    line = f"fediwarden_gateway_overrides {float(count)}"
    for each in gateways:
        wait_for(lambda each=each: line in httpx.get(f"{each.url}/metrics").text.splitlines())


def encoded(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def photo(seed: int) -> Image.Image:
    return Image.open(io.BytesIO(pictures.photo(seed=seed))).convert("RGB").resize((640, 480))


def by_colour(image: ImageSubmitted) -> Decision:
    """The stand-in's opinion: what it was told to dislike."""
    return Decision.REJECT if image.sha256 in DISLIKED else Decision.ACCEPT


DISLIKED: set[bytes] = set()


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.fixture
def two(fresh_kafka: BrokerSettings) -> Iterator[tuple[RunningGateway, RunningGateway]]:
    more: dict[str, Any] = {"deadline_ms": 20_000, "admin_token": SecretStr(TOKEN)}
    with (
        Responder(fresh_kafka, by_colour),
        running_gateway(fresh_kafka, **more) as one,
        running_gateway(fresh_kafka, **more) as other,
    ):
        yield one.ready(), other.ready()


def test_a_request_that_waits_is_answered_as_soon_as_an_override_on_its_bytes_or_look_is_set(
    fresh_kafka: BrokerSettings,
) -> None:
    """No verdict comes, and the deadline is further away than the client's patience."""
    allowed, denied = encoded(photo(31), 90), encoded(photo(32), 90)
    with (
        Responder(fresh_kafka, lambda image: None) as silent,
        running_gateway(fresh_kafka, deadline_ms=600_000) as running,
        ThreadPoolExecutor(3) as clients,
    ):
        running.ready()

        def send(image: bytes) -> Future[dict[str, Any]]:
            return clients.submit(lambda: httpx.post(f"{running.url}{PICT_RS}", content=image, timeout=120).json())

        first, second = send(allowed), send(denied)
        wait_for(lambda: {each.sha256 for each in silent.seen} == {sha256(allowed), sha256(denied)})
        [override] = edit(fresh_kafka, effect="allow", sha256=sha256(allowed).hex())
        answer = first.result()
        assert (answer["accepted"], answer["answered_by"]) == (True, "override")
        assert not second.done(), "an override on another image answers nobody else"
        [frame] = next(each for each in silent.seen if each.sha256 == sha256(denied)).frames
        edit(fresh_kafka, effect="deny", pdq=frame.pdq.hex())
        answer = second.result()
        assert (answer["accepted"], answer["answered_by"]) == (False, "override")

        # Taken back before there was a verdict: the image is judged as any other.
        take_back(fresh_kafka, override)
        until_known(1, running)
        third = send(allowed)
        wait_for(lambda: len(silent.seen) == 3)
        publish(fresh_kafka, make_verdict(silent.seen[-1], Decision.REJECT))
        assert third.result()["answered_by"] == "verdict"


def test_a_false_positive_is_accepted_by_every_gateway_after_one_word_whatever_its_bytes_and_after_a_new_model(
    fresh_kafka: BrokerSettings, two: tuple[RunningGateway, RunningGateway]
) -> None:
    one, other = two
    original, smaller = encoded(photo(1), 90), encoded(photo(1).resize((400, 300)), 60)
    DISLIKED.update(map(sha256, (original, smaller)))
    refused = post(one, original)
    assert (refused["accepted"], refused["answered_by"]) == (False, "verdict")

    set_ = edit(fresh_kafka, effect="allow", scan_id=refused["scan_id"])
    assert {each.kind for each in set_} == {"sha256", "pdq"}
    until_known(len(set_), one, other)
    for gateway in two:
        for image in (original, smaller):
            answer = post(gateway, image)
            assert (answer["accepted"], answer["decision"], answer["answered_by"]) == (True, "accept", "override")
            assert "alice: a painting" in answer["reason"]

    publish_new_judge(fresh_kafka)
    with running_gateway(fresh_kafka, deadline_ms=20_000) as later:
        assert post(later.ready(), original)["answered_by"] == "override"
    entries = [each for each in answers_given(fresh_kafka, 6) if each.answered_by is AnsweredBy.OVERRIDE]
    assert {each.decision for each in entries} == {Decision.ACCEPT}
    assert all("alice: a painting" in each.reason and each.carried_by == "" for each in entries)


def publish_new_judge(kafka: BrokerSettings) -> None:
    announced = SAMPLES["scanner-announced-1"].model_copy(
        update={"scanner": "new", "models": MODELS | {"new": "1"}, "announced_at": now_ms()}
    )

    async def go() -> None:
        async with Producer(kafka, client_id="test") as producer:
            await producer.publish(SCANNERS, announced, key=b"new")

    asyncio.run(go())


def test_a_denial_goes_before_a_known_verdict_by_bytes_and_by_look_and_is_gone_when_it_is_removed(
    two: tuple[RunningGateway, RunningGateway],
) -> None:
    one, other = two
    image, alike, stranger = encoded(photo(2), 90), encoded(photo(2), 50), encoded(photo(3), 90)
    for each in (image, alike, stranger):
        assert post(one, each)["accepted"]
    assert post(other, alike)["answered_by"] == "known"

    scan_id = post(one, image)["scan_id"]
    set_ = admin(one, "POST", json={"effect": "deny", "scan_id": scan_id, "set_by": "bob", "reason": "report 4711"})
    assert set_.status_code == 200, set_.text
    overrides = set_.json()["overrides"]
    assert post(one, image)["answered_by"] == "override", "what replied 200 holds here at once"
    until_known(len(overrides), other)
    for gateway in two:
        for each in (image, alike):
            refused = httpx.post(f"{gateway.url}{PICT_RS}", content=each, timeout=30)
            assert (refused.status_code, refused.json()["answered_by"]) == (406, "override")
            assert "bob: report 4711" in refused.json()["reason"]
        assert post(gateway, stranger)["answered_by"] == "known"

    assert admin(other, "GET").json()["overrides"] == overrides
    for each in overrides:
        assert admin(other, "DELETE", f"/{each['id']}").json() == {"overrides": [each]}
    assert post(other, image)["answered_by"] == "known"
    assert admin(other, "GET").json() == {"overrides": []}
    until_known(0, one)
    assert post(one, image)["answered_by"] == "known"


def test_a_denied_look_refuses_an_animation_that_shows_it_before_anybody_judges_it(
    fresh_kafka: BrokerSettings, two: tuple[RunningGateway, RunningGateway]
) -> None:
    one, _ = two
    bad, good = photo(4).resize((320, 240)), photo(5).resize((320, 240))
    scan_id = post(one, encoded(bad, 90))["scan_id"]
    film, harmless = animation(good, bad), animation(good, photo(6).resize((320, 240)))
    set_ = edit(fresh_kafka, effect="deny", scan_id=scan_id, tenant="default")
    until_known(len(set_), one)
    assert (post(one, film)["answered_by"], post(one, film)["accepted"]) == ("override", False)
    assert post(one, harmless)["answered_by"] == "verdict"

    edit(fresh_kafka, effect="allow", scan_id=scan_id)
    edit(fresh_kafka, effect="allow", scan_id=scan_id, tenant="default")
    until_known(2 * len(set_), one)
    assert post(one, film)["answered_by"] == "verdict", "one allowed frame lets in no film"


def animation(*frames: Image.Image) -> bytes:
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=500, quality=90)
    return buffer.getvalue()


def test_an_override_that_expires_holds_until_then_and_is_listed_as_expired_after(
    two: tuple[RunningGateway, RunningGateway],
) -> None:
    one, _ = two
    image = encoded(photo(7), 90)
    until = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    fields = {"effect": "deny", "sha256": sha256(image).hex(), "set_by": "bob", "reason": "for now", "until": until}
    (set_,) = admin(one, "POST", json=fields).json()["overrides"]
    assert not set_["expired"]
    assert post(one, image)["answered_by"] == "override"
    wait_for(lambda: post(one, image)["answered_by"] != "override")
    assert admin(one, "GET").json()["overrides"] == [set_ | {"expired": True}]


def test_only_the_admins_token_opens_the_api_and_what_is_wrong_is_named(
    two: tuple[RunningGateway, RunningGateway], fresh_kafka: BrokerSettings
) -> None:
    one, _ = two
    fields = {"effect": "allow", "sha256": "ab" * 32, "set_by": "bob", "reason": "fine"}
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/0123456789abcdef")):
        for token in ("x", TOKEN + "x", TOKEN[:-1]):
            reply = admin(one, method, path, token, json=fields)
            assert reply.status_code == 401, (method, token)
    assert httpx.get(f"{one.url}/v1/overrides").json()["error"]["code"] == "unknown_token"

    def refused(**changes: object) -> tuple[int, str, str]:
        reply = admin(one, "POST", json={name: each for name, each in (fields | changes).items() if each is not None})
        error = reply.json()["error"]
        return reply.status_code, error["code"], error["field"]

    assert refused(sha256="ab") == (400, "invalid_override", "sha256")
    assert refused(pdq="cd" * 32) == (400, "invalid_override", "body")
    assert refused(sha256=None) == (400, "invalid_override", "body")
    assert refused(effect="perhaps") == (400, "invalid_override", "effect")
    assert refused(distance=65) == (400, "invalid_override", "distance")
    assert refused(tenant="NOBODY!") == (400, "invalid_override", "tenant")
    assert refused(until="2020-01-01T00:00:00Z") == (400, "invalid_override", "body")
    assert refused(until="2050-01-01T00:00:00") == (400, "invalid_override", "until")
    assert refused(untill="2050-01-01T00:00:00Z") == (400, "invalid_override", "untill")
    assert refused(sha256=None, scan_id="no-such-scan") == (404, "unknown_scan", "scan_id")
    assert admin(one, "POST", content=b"{").json()["error"]["code"] == "invalid_override"
    assert admin(one, "POST", content=b" " * (17 << 10)).status_code == 413
    assert admin(one, "DELETE", "/0123456789abcdef").json()["error"]["code"] == "unknown_override"
    assert read_topic(fresh_kafka, OVERRIDES) == []
    with running_gateway(fresh_kafka) as closed:
        assert admin(closed.ready(), "POST", json=fields).json()["error"]["code"] == "admin_off"


def test_a_scan_is_found_by_any_gateways_memory_by_the_topics_and_by_a_scan_that_was_answered_as_known(
    fresh_kafka: BrokerSettings, two: tuple[RunningGateway, RunningGateway]
) -> None:
    one, other = two
    image = encoded(photo(8), 90)
    first, second = post(one, image), post(other, image)
    assert second["answered_by"] == "known"
    answers_given(fresh_kafka, 2)
    for scan_id in (first["scan_id"], second["scan_id"]):
        hashes = {(each.kind, each.hash) for each in edit(fresh_kafka, effect="allow", scan_id=scan_id)}
        assert ("sha256", sha256(image)) in hashes
        assert len(hashes) == 2
        (exact,) = edit(fresh_kafka, effect="allow", scan_id=scan_id, exact=True)
        assert (exact.hash, exact.scan_id) == (sha256(image), scan_id)
    with pytest.raises(ScanUnknown):
        edit(fresh_kafka, effect="allow", scan_id="0199c2f4e1aa5d0c8a41b7e2f09c3d11")


def run(kafka: BrokerSettings, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FEDIWARDEN_")}
    own = {
        "FEDIWARDEN_DATA_DIR": str(folder),
        "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "FEDIWARDEN_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
    }
    return subprocess.run(
        [sys.executable, "-m", "fediwarden", "overrides", *arguments],
        env=clean | own,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_moderator_needs_one_command_to_allow_one_to_see_and_one_to_take_back(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    data = b"a false positive"
    publish(fresh_kafka, verdict(data, "scan-1", pdq=(bytes(range(32)),), pdq_quality=(90,)))
    allowed = run(fresh_kafka, tmp_path, "allow", "scan-1", "--why", "a [bold] painting", "--by", "alice")
    assert allowed.returncode == 0, allowed.stderr
    assert "a [bold] painting" in allowed.stdout
    listed = json.loads(run(fresh_kafka, tmp_path, "list", "--json").stdout)
    assert {(each["kind"], each["scan_id"], each["set_by"]) for each in listed} == {
        ("sha256", "scan-1", "alice"),
        ("pdq", "scan-1", "alice"),
    }
    denied = run(
        fresh_kafka, tmp_path, "deny", f"sha256:{'ab' * 32}", "--why", "no", "--tenant", "a", "--until", "30d", "--json"
    )
    (denial,) = json.loads(denied.stdout)
    assert (denial["effect"], denial["tenant"], denial["hash"]) == ("deny", "a", "ab" * 32)
    assert datetime.fromisoformat(denial["until"]) > datetime.now(UTC) + timedelta(days=29)
    removed = run(fresh_kafka, tmp_path, "remove", "scan-1")
    assert removed.returncode == 0, removed.stderr
    assert [each["id"] for each in json.loads(run(fresh_kafka, tmp_path, "list", "--json").stdout)] == [denial["id"]]
    again = run(fresh_kafka, tmp_path, "remove", "scan-1")
    assert (again.returncode, again.stdout) == (1, "")
    assert "fediwarden overrides list" in again.stderr
    unclear = run(fresh_kafka, tmp_path, "deny", "ab" * 32, "--why", "no")
    assert unclear.returncode == 2
    assert "pdq:" in unclear.stderr


def test_a_denial_reaches_what_every_tenant_stored_long_before_and_once_only(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer
) -> None:
    data, alike, other = b"stored long ago", b"looks the same", b"another"
    for each in (data, alike, other):
        pict_rs.files.keep(each, JPEG)
    look = {"pdq": (bytes(range(32)),), "pdq_quality": (90,)}
    long_ago = now_ms() - 86_400_000
    publish(
        fresh_kafka,
        verdict(data, "1", decision=Decision.ACCEPT, judged_at=long_ago, **look),
        verdict(alike, "2", decision=Decision.ACCEPT, judged_at=long_ago, **look),
        verdict(other, "3", decision=Decision.ACCEPT, pdq=(bytes(range(1, 33)),), pdq_quality=(90,)),
        answered_as_known(data, "4", tenant="second"),
    )
    tenants = {"default": tenant(pict_rs), "second": tenant(pict_rs, key="a-key-of-the-second")}

    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, _):
            async with enforcing(fresh_kafka, tenants):
                await uncommitted_is_nothing(fresh_kafka)
                await asyncio.to_thread(edit, fresh_kafka, effect="deny", scan_id="1")
                await observed.until(lambda: observed.is_over(data) and observed.is_over(data, "second"))
                await observed.until(lambda: observed.is_over(alike) and observed.is_erased(data))
            assert REMOVED in observed.outcomes(data) + observed.outcomes(data, "second")
            assert REMOVED in observed.outcomes(alike)
            assert observed.of(other) == []

    asyncio.run(scenario())
    assert pict_rs.files.sha256s() == {sha256(other).hex()}
    told = denials(fresh_kafka)
    assert {(each.scan_id, each.tenant, each.decision) for each in told} == {
        ("1", "default", Decision.REJECT),
        ("2", "default", Decision.REJECT),
        ("4", "second", Decision.REJECT),
    }
    assert {each.length for each in told if each.sha256 == sha256(data)} == {len(data)}

    async def again() -> None:
        """Another enforcer, of another group, reads all of it once more."""
        async with observing(fresh_kafka) as (observed, _), enforcing(fresh_kafka, tenants, group="another"):
            await observed.until(lambda: sum(each.final for each in observed.of(data)) == 2)
            await until_committed(fresh_kafka, "another-denials", OVERRIDES)

    asyncio.run(again())
    assert len(denials(fresh_kafka)) == len(told) == 3


def answered_as_known(data: bytes, scan_id: str, *, tenant: str) -> AnswerGiven:
    fields = {"scan_id": scan_id, "tenant": tenant, "sha256": sha256(data), "length": len(data), "media_type": ""}
    changes = fields | {"answered_by": AnsweredBy.KNOWN, "decision": Decision.ACCEPT, "accepted": True, "status": 200}
    return SAMPLES["answer-given-1.1"].model_copy(update=changes)  # type: ignore[return-value]


def denials(kafka: BrokerSettings) -> list[Verdict]:
    messages = [each.message for each in read_topic(kafka, VERDICTS)]
    return [each for each in messages if isinstance(each, Verdict) and each.stage is Stage.OVERRIDE]


async def uncommitted_is_nothing(kafka: BrokerSettings) -> None:
    async with asyncio.timeout(60):
        while await uncommitted(kafka):
            await asyncio.sleep(0.05)


async def until_committed(kafka: BrokerSettings, group: str, topic: Any) -> None:
    async with asyncio.timeout(60):
        while await uncommitted(kafka, group, topic):
            await asyncio.sleep(0.05)


def test_what_is_allowed_is_kept_by_an_enforcer_that_starts_later_and_removed_once_the_word_is_taken_back(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer
) -> None:
    data = b"a false positive"
    pict_rs.files.keep(data, JPEG)

    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            (allowed,) = await asyncio.to_thread(edit, fresh_kafka, effect="allow", sha256=sha256(data).hex())
            await judge(producer, verdict(data, "1"))
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}):
                await observed.until(lambda: observed.is_over(data))
                assert set(observed.outcomes(data)) == {ALLOWED}
                assert "alice: a painting" in observed.reports[0].detail
                assert not observed.is_erased(data)
                assert await uncommitted(fresh_kafka) <= 1
                await OverrideEditor(fresh_kafka, producer).remove(allowed.override_id)
                while REMOVED not in observed.outcomes(data):  # until the enforcer, too, has heard of it
                    count = len(observed.reports)
                    await judge(producer, verdict(data, "2"))
                    await observed.until(lambda count=count: len(observed.reports) > count)
                await observed.until(lambda: observed.is_erased(data))

    asyncio.run(scenario())
    assert pict_rs.files.sha256s() == set()


def test_a_word_that_comes_while_pict_rs_is_away_still_saves_the_file(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer
) -> None:
    data = b"a false positive"
    pict_rs.files.keep(data, JPEG)

    async def scenario() -> None:
        async with (
            observing(fresh_kafka) as (observed, producer),
            enforcing(fresh_kafka, {"default": tenant(pict_rs)}),
        ):
            pict_rs.behave("error")
            await judge(producer, verdict(data, "1"))
            await observed.until(lambda: FAILED in observed.outcomes(data))
            await asyncio.to_thread(edit, fresh_kafka, effect="allow", sha256=sha256(data).hex())
            await observed.until(lambda: ALLOWED in observed.outcomes(data))
            pict_rs.behave("well")
            await observed.until(lambda: observed.is_over(data))

    asyncio.run(scenario())
    assert pict_rs.files.sha256s() == {sha256(data).hex()}
    assert pict_rs.asked("/internal/purge") == 0


def test_a_word_that_comes_between_finding_a_file_and_purging_it_still_saves_it(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"a false positive"
    pict_rs.files.keep(data, JPEG)
    memories: list[Overrides] = []
    find = PictRs.find

    class Remembered(Overrides):
        def __init__(self) -> None:
            super().__init__()
            memories.append(self)

    async def find_and_hear(self: PictRs, sha256_: bytes, length: int, media_type: str) -> tuple[str, ...]:
        found = await find(self, sha256_, length, media_type)
        if not len(memories[0]):
            await asyncio.to_thread(edit, fresh_kafka, effect="allow", sha256=sha256_.hex())
            assert await memories[0].reached(0, within_s=60)
        return found

    monkeypatch.setattr("gateway.enforcement.service.Overrides", Remembered)
    monkeypatch.setattr(PictRs, "find", find_and_hear)

    async def scenario() -> None:
        async with (
            observing(fresh_kafka) as (observed, producer),
            enforcing(fresh_kafka, {"default": tenant(pict_rs)}),
        ):
            await judge(producer, verdict(data, "1"))
            await observed.until(lambda: observed.is_over(data))
            assert set(observed.outcomes(data)) == {ALLOWED}

    asyncio.run(scenario())
    assert pict_rs.files.sha256s() == {sha256(data).hex()}


def test_a_denial_that_is_taken_back_before_it_is_carried_out_removes_nothing(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer
) -> None:
    data, bad = b"denied by mistake", b"bad"
    for each in (data, bad):
        pict_rs.files.keep(each, JPEG)
    publish(fresh_kafka, verdict(data, "1", decision=Decision.ACCEPT))
    edit(fresh_kafka, effect="deny", sha256=sha256(data).hex())
    edit(fresh_kafka, effect="allow", sha256=sha256(data).hex())

    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            raw = AIOKafkaProducer(bootstrap_servers=fresh_kafka.bootstrap_servers)
            await raw.start()
            await raw.send_and_wait(OVERRIDES.full_name(fresh_kafka.topic_prefix), b"\xff garbage", key=b"garbage")
            await raw.stop()
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}):
                await judge(producer, verdict(bad, "2"))
                await observed.until(lambda: observed.is_over(bad))
                await until_committed(fresh_kafka, "enforcer-denials", OVERRIDES)
            assert observed.of(data) == []

    asyncio.run(scenario())
    assert denials(fresh_kafka) == []
    assert pict_rs.files.sha256s() == {sha256(data).hex()}


def test_an_image_whose_request_was_answered_before_its_frames_were_there_is_judged_and_then_removed(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer
) -> None:
    """The scanner accepts it; the enforcer goes by the moderator's word on its look."""
    data = b"let in by the deadline"
    pict_rs.files.keep(data, JPEG)
    edit(fresh_kafka, effect="deny", pdq=bytes(range(32)).hex())

    async def scenario() -> None:
        async with (
            observing(fresh_kafka) as (observed, producer),
            enforcing(fresh_kafka, {"default": tenant(pict_rs)}),
        ):
            look = {"pdq": (bytes(range(32)),), "pdq_quality": (90,)}
            await judge(producer, verdict(data, "1", decision=Decision.ACCEPT, **look))
            await observed.until(lambda: REMOVED in observed.outcomes(data) and observed.is_erased(data))

    asyncio.run(scenario())
