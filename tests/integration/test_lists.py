"""Known-hash lists in the real gateway on a real Kafka: what is listed is refused without a scan."""

import asyncio
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from PIL import Image

from gateway.frames.pdq import pdq
from gateway.lists.definition import ListDefinition
from gateway.lists.hashes import HashSet
from gateway.lists.kinds import HashKind
from gateway.lists.settings import ListSettings
from gateway.lists.sources import fetch_hashes
from gateway.lists.store import ListStore
from schemas.broker import BrokerSettings, Received, Tail
from schemas.messages import AnsweredBy, Decision, ImageSubmitted, Stage, Verdict
from schemas.topics import VERDICTS
from tests import pictures
from tests.gateways import RunningGateway, running_gateway, wait_for
from tests.responder import Responder, answers_given

pytestmark = pytest.mark.kafka

PICT_RS = "/api/v1/scan/IPADDR"
TOKEN = "a-token-that-readers-have"


def accept(image: ImageSubmitted) -> Decision:
    return Decision.ACCEPT


def post(running: RunningGateway, image: bytes, path: str = PICT_RS) -> httpx.Response:
    return httpx.post(f"{running.url}{path}", content=image, timeout=30)


def photo(seed: int) -> Image.Image:
    return Image.open(io.BytesIO(pictures.photo(seed, 640, 480)))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def hash_of(image: bytes) -> bytes:
    return pdq(Image.open(io.BytesIO(image)).convert("RGB")).pdq


def listing(folder: Path, name: str, hashes: dict[HashKind, list[bytes]], **more: object) -> str:
    """Put a list into the folder; its version."""
    definition = ListDefinition.model_validate({"name": name, "source": "a test", "reason": "known elsewhere", **more})
    return ListStore(folder).save(definition, HashSet.of(hashes)).version


def lists_part(running: RunningGateway) -> dict[str, object]:
    part: dict[str, object] = httpx.get(f"{running.url}/readyz").json()["parts"]["lists"]
    return part


def verdicts(broker: BrokerSettings, count: int) -> list[Verdict]:
    """What stands in `verdicts`, once there are so many."""

    async def read() -> list[Verdict]:
        found: list[Verdict] = []
        complete = asyncio.Event()

        def note(received: Received) -> None:
            assert isinstance(received.message, Verdict)
            found.append(received.message)
            if len(found) >= count:
                complete.set()

        async with Tail(broker, (VERDICTS,), since_s=3600, on_record=note, client_id="test") as tail:
            await tail.wait_positioned()
            async with asyncio.timeout(20):
                await complete.wait()
        return found

    return asyncio.run(read())


def settings(folder: Path, **more: object) -> ListSettings:
    return ListSettings.model_validate({"folder": folder, "check_s": 0.05, **more})


def test_a_listed_picture_is_refused_without_a_scan_however_it_was_saved_turned_or_scaled(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    version = listing(tmp_path, "partners", {HashKind.PDQ: [hash_of(pictures.photo(1, 640, 480))]})
    with (
        Responder(fresh_kafka, accept) as scanner,
        running_gateway(fresh_kafka, deadline_ms=20_000, lists=settings(tmp_path)) as running,
    ):
        running.ready()
        original = photo(1)
        copies = [
            pictures.photo(1, 640, 480),
            encoded(original, "JPEG", quality=55),
            encoded(original.resize((400, 300)), "WEBP", quality=80),
            encoded(original.transpose(Image.Transpose.ROTATE_90), "PNG"),
            encoded(original.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((900, 675)), "JPEG", quality=75),
            encoded(photo(2), "GIF", save_all=True, append_images=[original, photo(3)], duration=300),
        ]
        for copy in copies:
            answer = post(running, copy)
            body = answer.json()
            assert (answer.status_code, body["decision"], body["answered_by"]) == (406, "reject", "list"), body
            assert body["hash_list"] == f"partners@{version}"
            assert "known elsewhere" in body["reason"]
            assert [rule["name"] for rule in body["rules"]] == ["list:partners"]
        unlisted = post(running, pictures.photo(4, 640, 480))
        assert (unlisted.status_code, unlisted.json()["answered_by"]) == (200, "verdict")
        assert [image.sha256 for image in scanner.seen] == [hashlib.sha256(pictures.photo(4, 640, 480)).digest()]

        found = {each.sha256: each for each in verdicts(fresh_kafka, len(copies) + 1) if each.stage is Stage.LIST}
        assert set(found) == {hashlib.sha256(copy).digest() for copy in copies}
        animation = found[hashlib.sha256(copies[-1]).digest()]
        assert (animation.decision, animation.hash_list) == (Decision.REJECT, f"partners@{version}")
        assert (animation.frame_count, animation.worst_frame) == (3, 1)
        by_list = [a for a in answers_given(fresh_kafka, len(copies) + 1) if a.answered_by is AnsweredBy.LIST]
        assert len(by_list) == len(copies)
        assert 'fediwarden_gateway_list_matches_total{action="reject",kind="pdq",list="partners"} 6.0' in (
            httpx.get(f"{running.url}/metrics").text
        )


@pytest.mark.parametrize("kind", [HashKind.SHA256, HashKind.MD5])
def test_listed_bytes_are_refused_before_anybody_looks_at_them(
    fresh_kafka: BrokerSettings, tmp_path: Path, kind: HashKind
) -> None:
    garbage = b"no picture at all"  # a worker would say so: it is never asked
    digest = hashlib.sha256(garbage) if kind is HashKind.SHA256 else hashlib.md5(garbage)
    listing(tmp_path, "files", {kind: [digest.digest()]})
    with running_gateway(fresh_kafka, lists=settings(tmp_path)) as running:
        running.ready()
        answers = [post(running, garbage) for _ in range(3)]
        assert [(each.status_code, each.json()["answered_by"]) for each in answers] == [(406, "list")] * 3
        assert "fediwarden_gateway_frames_seconds_count 0.0" in httpx.get(f"{running.url}/metrics").text
        # Three requests, three entries of the ledger, one verdict for the enforcer and the audit.
        assert len(answers_given(fresh_kafka, 3)) == 3
        post(running, garbage + b"!")
        assert [each.scan_id for each in verdicts(fresh_kafka, 1)] == [answers[0].json()["scan_id"]]
        report = httpx.get(f"{running.url}/v1/scans/{answers[0].json()['scan_id']}").json()
        assert report["answer"]["answered_by"] == "list"


def test_a_list_for_review_has_the_image_scanned_and_reviewed_at_least(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    judged = {1: Decision.ACCEPT, 2: Decision.REJECT}
    images = {seed: pictures.photo(seed, 640, 480) for seed in judged}
    by_sha256 = {hashlib.sha256(image).digest(): judged[seed] for seed, image in images.items()}
    listing(tmp_path, "doubtful", {HashKind.PDQ: [hash_of(each) for each in images.values()]}, action="review")
    with (
        Responder(fresh_kafka, lambda image: by_sha256[image.sha256]) as scanner,
        running_gateway(fresh_kafka, deadline_ms=20_000, lists=settings(tmp_path)) as running,
    ):
        running.ready()
        answers = {seed: post(running, image) for seed, image in images.items()}
        assert len(scanner.seen) == 2
        assert (answers[1].status_code, answers[1].json()["decision"]) == (200, "review")
        assert answers[1].json()["answered_by"] == "verdict"
        assert "doubtful" in answers[1].json()["reason"]
        assert (answers[2].status_code, answers[2].json()["decision"]) == (406, "reject")
        again = post(running, images[1])
        assert (again.json()["answered_by"], again.json()["decision"]) == ("known", "review")
        ledger = {(a.answered_by, a.decision) for a in answers_given(fresh_kafka, 3)}
        assert ledger == {
            (AnsweredBy.VERDICT, Decision.REVIEW),
            (AnsweredBy.VERDICT, Decision.REJECT),
            (AnsweredBy.KNOWN, Decision.REVIEW),
        }
        listed = [each for each in verdicts(fresh_kafka, 4) if each.stage is Stage.LIST]
        assert {each.decision for each in listed} == {Decision.REVIEW}


def test_of_several_lists_the_strongest_decides(fresh_kafka: BrokerSettings, tmp_path: Path) -> None:
    image = pictures.photo(5, 640, 480)
    listing(tmp_path, "a-review", {HashKind.SHA256: [hashlib.sha256(image).digest()]}, action="review")
    listing(tmp_path, "b-reject", {HashKind.PDQ: [hash_of(image)]})
    with running_gateway(fresh_kafka, deadline_ms=5_000, lists=settings(tmp_path)) as running:
        running.ready()
        body = post(running, image).json()
        assert (body["decision"], body["answered_by"]) == ("reject", "list")
        assert body["hash_list"].startswith("b-reject@")


def test_lists_come_change_and_go_while_a_gateway_serves_and_known_pictures_are_compared_anew(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    image = pictures.photo(6, 640, 480)
    turned = encoded(photo(6).transpose(Image.Transpose.ROTATE_180), "PNG")
    folder = tmp_path / "not there yet"
    with (
        Responder(fresh_kafka, accept),
        running_gateway(fresh_kafka, deadline_ms=20_000, lists=settings(folder)) as one,
        running_gateway(fresh_kafka, deadline_ms=20_000, lists=settings(folder)) as other,
    ):
        both = (one.ready(), other.ready())
        assert post(one, image).json()["answered_by"] == "verdict"
        assert post(one, turned).json()["answered_by"] == "verdict"
        assert post(one, image).json()["answered_by"] == "known"

        listing(folder, "late", {HashKind.PDQ: [hash_of(image)]})
        for running in both:
            wait_for(lambda running=running: "1 matched" in str(lists_part(running)["detail"]))
            # Judged before, without its pixels: by the hash that the verdict carries.
            assert post(running, image).json()["answered_by"] == "list"

        listing(folder, "late", {HashKind.PDQ: [bytes(32)]})
        wait_for(lambda: post(one, image).json()["answered_by"] == "known")

        (folder / "late.list").write_bytes(b"garbage")
        wait_for(lambda: "damaged" in str(lists_part(one)["detail"]))
        assert lists_part(one)["ok"] is False
        assert httpx.get(f"{one.url}/readyz").status_code == 200

        ListStore(folder).remove("late")
        wait_for(lambda: "0 matched" in str(lists_part(one)["detail"]))
        assert lists_part(one)["ok"] is True


def test_an_expired_list_matches_nothing_and_says_so(fresh_kafka: BrokerSettings, tmp_path: Path) -> None:
    image = pictures.photo(7, 640, 480)
    listing(tmp_path, "old", {HashKind.PDQ: [hash_of(image)]}, expires_at=1_000)
    with (
        Responder(fresh_kafka, accept),
        running_gateway(fresh_kafka, deadline_ms=20_000, lists=settings(tmp_path)) as running,
    ):
        running.ready()
        assert post(running, image).json()["answered_by"] == "verdict"
        part = lists_part(running)
        assert (part["ok"], part["required"]) == (False, False)
        assert "old: expired" in str(part["detail"])
        assert "fediwarden_gateway_lists_idle 1.0" in httpx.get(f"{running.url}/metrics").text


def test_a_poisoned_list_is_suspended_in_every_gateway_until_somebody_says_otherwise(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    images = [pictures.photo(seed, 320, 240) for seed in range(100, 116)]
    listing(tmp_path, "poisoned", {HashKind.PDQ: [hash_of(each) for each in images]})
    listing(tmp_path, "trusted", {HashKind.SHA256: [hashlib.sha256(images[0]).digest()]}, guarded=False)
    guard = {"guard_images": 10, "guard_window": 1000}
    with (
        Responder(fresh_kafka, accept),
        running_gateway(fresh_kafka, deadline_ms=20_000, lists=settings(tmp_path, **guard)) as one,
        running_gateway(fresh_kafka, deadline_ms=20_000, lists=settings(tmp_path, **guard)) as other,
    ):
        one.ready()
        other.ready()
        refused = [post(one, image).json()["answered_by"] for image in images]
        assert refused[:10] == ["list"] * 10  # the tenth is one too many: from then on scanners judge
        assert refused[10:] == ["verdict"] * 6
        for running in (one, other):
            wait_for(lambda running=running: "poisoned: suspended" in str(lists_part(running)["detail"]))
        assert post(other, images[1]).json()["answered_by"] == "verdict"
        assert post(other, images[0]).json()["hash_list"].startswith("trusted@")
        suspension = ListStore(tmp_path).suspension("poisoned")
        assert suspension is not None and (suspension.matched, suspension.images) == (9, 10)
        with running_gateway(fresh_kafka, deadline_ms=20_000, lists=settings(tmp_path)) as third:
            third.ready()
            assert post(third, images[2]).json()["answered_by"] == "verdict"
        assert ListStore(tmp_path).resume("poisoned")
        for running in (one, other):
            wait_for(lambda running=running: "2 matched" in str(lists_part(running)["detail"]))
        assert post(other, images[3]).json()["answered_by"] == "list"


def test_a_listed_picture_is_refused_while_kafka_is_away_and_the_verdict_follows(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    image = pictures.photo(8, 640, 480)
    listing(tmp_path / "lists", "partners", {HashKind.PDQ: [hash_of(image)]})
    kept = {"spool_dir": tmp_path / "spool", "lists": settings(tmp_path / "lists")}
    away = fresh_kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:9"})
    with running_gateway(away, **kept) as running:
        assert post(running, image).json()["answered_by"] == "list"
    with running_gateway(fresh_kafka, **kept) as running:
        running.ready()
        (verdict,) = verdicts(fresh_kafka, 1)
        assert (verdict.stage, verdict.sha256) == (Stage.LIST, hashlib.sha256(image).digest())


def test_a_rejected_picture_is_learnt_and_another_fediwarden_has_it_without_a_scanner(
    fresh_kafka: BrokerSettings,
    make_topics: Callable[[], BrokerSettings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two instances: one judges and shares what it rejected, the other has no scanner and reads that."""
    monkeypatch.setenv("PARTNERS_TOKEN", TOKEN)
    bad, fine = pictures.photo(9, 640, 480), pictures.photo(10, 640, 480)
    by_sha256 = {hashlib.sha256(bad).digest(): Decision.REJECT}
    ours = settings(
        tmp_path / "ours",
        learn={"source": "rejections", "min_quality": 50},
        shared=["own"],
        reader_token=TOKEN,
    )
    with (
        Responder(fresh_kafka, lambda image: by_sha256.get(image.sha256, Decision.ACCEPT)) as scanner,
        running_gateway(fresh_kafka, deadline_ms=20_000, lists=ours) as running,
    ):
        running.ready()
        assert post(running, bad).json()["answered_by"] == "verdict"
        assert post(running, fine).json()["decision"] == "accept"
        wait_for(lambda: "1 matched, 1 hashes" in str(lists_part(running)["detail"]))
        edited = encoded(photo(9).transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((500, 375)), "WEBP", quality=70)
        answer = post(running, edited)
        assert (answer.status_code, answer.json()["answered_by"]) == (406, "list")
        assert "our own decisions" in answer.json()["reason"]
        assert len(scanner.seen) == 2

        address = f"{running.url}/v1/lists/own"
        reader = {"Authorization": f"Bearer {TOKEN}"}
        document = httpx.get(address, headers=reader)
        assert document.status_code == 200
        assert document.json()["counts"] == {"pdq": 1}
        (provenance,) = document.json()["provenance"].values()
        assert provenance["rules"] == ["rule"] and "scan_id" not in provenance
        etag = document.headers["ETag"]
        assert httpx.get(address, headers={**reader, "If-None-Match": etag}).status_code == 304
        assert httpx.get(address, headers={**reader, "If-None-Match": '"another"'}).status_code == 200
        for wrong in ({}, {"Authorization": "Bearer another-token-of-32-characters"}, {"Authorization": "Basic x"}):
            assert httpx.get(address, headers=wrong).status_code == 401
        for name in ("partners", "..%2Fown", "own.list"):
            assert httpx.get(f"{running.url}/v1/lists/{name}", headers=reader).status_code == 404

        store = ListStore(tmp_path / "theirs")
        for action in ("review", "reject"):
            definition = ListDefinition(name=action, source=address, token_env="PARTNERS_TOKEN", action=action)
            store.save(definition, fetch_hashes(definition, most=100).hashes)
    store.remove("reject")
    with running_gateway(make_topics(), deadline_ms=2000, lists=settings(tmp_path / "theirs")) as theirs:
        theirs.ready()
        reviewed = post(theirs, edited).json()
        assert (reviewed["decision"], reviewed["answered_by"]) == ("review", "deadline")
        assert "(127.0.0.1)" in reviewed["reason"]  # whose list it is
        assert post(theirs, fine).json()["decision"] == "accept"


def test_piefed_gets_the_hash_of_an_image_on_the_web_and_nothing_of_our_own_network(
    fresh_kafka: BrokerSettings,
) -> None:
    image = pictures.photo(11, 640, 480)
    beside_us = {"enabled": True, "networks": ["127.0.0.0/8"]}
    with (
        served({"/a.jpg": image, "/page": b"<html></html>"}) as site,
        running_gateway(fresh_kafka) as closed,
        running_gateway(fresh_kafka, fetch={"enabled": True}) as guarded,
        running_gateway(fresh_kafka, fetch=beside_us | {"ports": [80, int(site.rpartition(":")[2])]}) as opened,
    ):

        def ask(running: RunningGateway, url: str, path: str = "/v1/pdq") -> httpx.Response:
            return httpx.get(f"{running.url}{path}", params={"image_url": url}, timeout=30)

        answer = ask(opened, f"{site}/a.jpg")
        assert answer.status_code == 200
        assert set(answer.json()) == {"pdq_hash_binary", "quality"}
        found = int(answer.json()["pdq_hash_binary"], 2).to_bytes(32)
        assert (int.from_bytes(found) ^ int.from_bytes(hash_of(image))).bit_count() <= 15
        assert answer.json()["quality"] >= 70
        assert ask(opened, f"{site}/a.jpg", "/v1/pdq/IPADDR").json() == answer.json()

        def code(answer: httpx.Response) -> tuple[int, str]:
            return answer.status_code, answer.json()["error"]["code"]

        assert code(ask(closed, f"{site}/a.jpg")) == (403, "fetching_off")
        assert code(ask(guarded, f"{site}/a.jpg")) == (400, "url_not_allowed")
        assert code(ask(guarded, "http://127.0.0.1/a.jpg")) == (400, "url_not_allowed")
        assert code(ask(opened, f"{site}/page")) == (422, "not_an_image")
        assert code(ask(opened, f"{site}/none")) == (422, "url_not_fetched")
        assert code(ask(opened, "")) == (400, "bad_request")
        assert code(ask(opened, f"{site}/a.jpg", "/v1/pdq/wrong-key")) == (401, "unknown_key")


@contextmanager
def served(files: dict[str, bytes]) -> Iterator[str]:
    """A web site on loopback with these files; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path)
            self.send_response(200 if content is not None else 404)
            self.send_header("content-length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args: object) -> None:
            """Quietly."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
