"""What is concluded from an exchange, and how surely."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.relay.learning import Learner
from gateway.relay.metrics import RelayMetrics
from gateway.relay.observing import JSON_MOST_BYTES, Watch
from gateway.relay.origins import Recent
from gateway.relay.reading_back import ReadingBack
from gateway.relay.rejections import Rejections
from gateway.relay.upstream import Upstream
from schemas.clock import now_ms
from schemas.messages import AnsweredBy, AnswerGiven, Confidence, Decision, OriginMethod, OriginObserved, Place
from schemas.pseudonyms import Pseudonyms
from tests.unit.gateway.relay.test_tokens import token

JSON = [(b"content-type", b"application/json")]
PNG = [(b"content-type", b"image/png")]
FAILED = b'{"msg":"Failed external validation","code":"failed-external-validation"}'
STORED = b'{"msg":"ok","files":[{"file":"one.png","delete_token":"t","details":{}},{"file":"two.png"}]}'
HELLO = hashlib.sha256(b"hello").digest()
BY_ALICE = [(b"authorization", b"Bearer " + token({"sub": "17", "iss": "lemmy.example"}))]
PROXY = "proxy=https%3A%2F%2FPics.example%2Fa.png"


class Learning:
    """A learner whose conclusions are in `origins`, unless it is `full`. Nothing is read back."""

    def __init__(self, folder: Path, domain: str | None) -> None:
        self.origins: list[OriginObserved] = []
        self.full = False
        self.metrics = RelayMetrics()
        self.rejections = Rejections(settle_s=0.0)
        self.pseudonyms = Pseudonyms.open(folder / "actors.json")
        self.learner = Learner(
            "default",
            domain,
            pseudonyms=self.pseudonyms,
            offer=self._offer,
            recent=Recent(most=100, hold_s=60.0),
            rejections=self.rejections,
            reading_back=ReadingBack(Upstream("http://127.0.0.1:9", connect_within_s=1.0), enabled=False),
            metrics=self.metrics,
            observer="test",
        )

    def _offer(self, origin: OriginObserved) -> bool:
        if not self.full:
            self.origins.append(origin)
        return not self.full

    def watch(
        self, method: str, path: str, query: str = "", headers: list[tuple[bytes, bytes]] | None = None
    ) -> Watch | None:
        return self.learner.watch(
            {"method": method, "path": path, "query_string": query.encode(), "headers": headers or []}
        )

    def pass_(
        self,
        method: str,
        target: str,
        status: int,
        answer_headers: list[tuple[bytes, bytes]],
        body: bytes,
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        """A whole exchange."""
        path, _, query = target.partition("?")
        watch = self.watch(method, path, query, headers)
        assert watch is not None
        watch.note_head(status, answer_headers)
        for start in range(0, len(body), 7):
            watch.note_piece(body[start : start + 7])
        watch.note_end()

    def reject(self, image: int = 1) -> AnswerGiven:
        """An answer of the gateway, as of now."""
        answer = AnswerGiven(
            scan_id=f"scan-{image}",
            tenant="default",
            sha256=bytes([image]) * 32,
            status=406,
            decision=Decision.REJECT,
            answered_by=AnsweredBy.VERDICT,
            answered_at=now_ms(),
            milliseconds=1.0,
            accepted=False,
        )
        self.rejections.observe(answer)
        return answer

    def settled(self) -> float:
        counts = [
            self.metrics.registry.get_sample_value("fediwarden_relay_rejections_total", {"matched": each})
            for each in ("true", "false")
        ]
        return sum(count or 0.0 for count in counts)


@pytest.fixture
def learning(tmp_path: Path) -> Iterator[Learning]:
    yield Learning(tmp_path, "lemmy.example")


async def settle(learning: Learning, count: int = 1) -> None:
    while learning.settled() < count:
        await asyncio.sleep(0.005)


def test_a_proxied_image_that_passes_whole_has_its_address_host_and_hash(learning: Learning) -> None:
    learning.pass_("GET", f"/image/original?{PROXY}", 200, PNG, b"hello")
    (origin,) = learning.origins
    assert (origin.url, origin.sha256, origin.alias) == ("https://Pics.example/a.png", HELLO, "")
    assert origin.host is not None
    assert (origin.host.domain, origin.host.confidence) == ("pics.example", Confidence.CERTAIN)
    assert (origin.place, origin.method) == (Place.PROXIED, OriginMethod.RELAY)
    assert origin.author is None
    assert origin.moment is not None
    assert origin.moment.confidence is Confidence.POSSIBLE


def test_who_looks_at_a_proxied_image_is_not_who_put_it_there(learning: Learning) -> None:
    learning.pass_("GET", f"/image/original?{PROXY}", 200, PNG, b"hello", BY_ALICE)
    assert learning.origins[0].author is None


@pytest.mark.parametrize(
    ("method", "target", "status", "headers"),
    [
        ("GET", f"/image/original?{PROXY}", 206, PNG),
        ("GET", f"/image/original?{PROXY}", 303, []),
        ("GET", f"/image/original?{PROXY}", 304, []),
        ("HEAD", f"/image/original?{PROXY}", 200, PNG),
        ("GET", f"/image/process.webp?{PROXY}&thumbnail=96", 200, PNG),
        ("GET", f"/image/original?{PROXY}", 200, [*PNG, (b"content-encoding", b"gzip")]),
    ],
)
def test_what_is_not_the_stored_file_itself_is_never_hashed(
    learning: Learning, method: str, target: str, status: int, headers: list[tuple[bytes, bytes]]
) -> None:
    learning.pass_(method, target, status, headers, b"hello")
    (origin,) = learning.origins
    assert (origin.url, origin.sha256) == ("https://Pics.example/a.png", b"")


@pytest.mark.parametrize("status", [400, 404, 500, 502])
def test_an_answer_that_failed_for_another_reason_says_nothing(learning: Learning, status: int) -> None:
    for target in (f"/image/original?{PROXY}", "/image/download?url=https://a.example/"):
        learning.pass_("GET", target, status, JSON, b'{"msg":"no","code":"not-found"}')
    assert learning.origins == []
    assert learning.settled() == 0


def test_an_answer_that_did_not_pass_whole_says_nothing(learning: Learning) -> None:
    watch = learning.watch("GET", "/image/original", PROXY)
    assert watch is not None
    watch.note_head(200, PNG)
    watch.note_piece(b"hel")
    assert learning.origins == []


def test_an_upload_has_its_aliases_and_its_uploader_by_pseudonym_only(learning: Learning) -> None:
    learning.pass_("POST", "/image", 201, JSON, STORED, BY_ALICE)
    expected = learning.pseudonyms.pseudonym("local-user:lemmy.example:17")
    assert expected is not None
    assert [origin.alias for origin in learning.origins] == ["one.png", "two.png"]
    for origin in learning.origins:
        assert origin.author is not None
        assert (origin.author.key_id, origin.author.pseudonym) == expected
        assert (origin.author.instance, origin.author.confidence) == ("lemmy.example", Confidence.CERTAIN)
        assert (origin.place, origin.host, origin.url) == (Place.UPLOAD, None, "")
        assert origin.moment is not None
        assert origin.moment.confidence is Confidence.CERTAIN


def test_an_upload_without_a_token_is_somebodys_of_the_instance(learning: Learning) -> None:
    learning.pass_("POST", "/image", 201, JSON, STORED)
    author = learning.origins[0].author
    assert author is not None
    assert (author.instance, author.pseudonym, author.confidence) == ("lemmy.example", b"", Confidence.LIKELY)


def test_a_token_of_another_server_leaves_the_uploader_unknown(learning: Learning) -> None:
    headers = [(b"authorization", b"Bearer " + token({"sub": "17", "iss": "other.example"}))]
    learning.pass_("POST", "/image", 201, JSON, STORED, headers)
    assert learning.origins[0].author is None


def test_without_a_domain_the_uploader_is_unknown(tmp_path: Path) -> None:
    learning = Learning(tmp_path, None)
    learning.pass_("POST", "/image", 201, JSON, STORED, BY_ALICE)
    assert learning.origins[0].author is None


def test_a_download_has_its_alias_and_its_address(learning: Learning) -> None:
    target = "/image/download?url=https%3A%2F%2Fnews.example%2Fog.jpg&resize=512"
    learning.pass_("GET", target, 201, JSON, b'{"msg":"ok","files":[{"file":"one.jpg"}]}', BY_ALICE)
    (origin,) = learning.origins
    assert (origin.alias, origin.url, origin.place) == ("one.jpg", "https://news.example/og.jpg", Place.IMPORTED)
    assert origin.author is None
    assert origin.host is not None
    assert origin.host.domain == "news.example"


def test_a_backgrounded_upload_is_its_uploaders_when_it_is_claimed(learning: Learning) -> None:
    learning.pass_("POST", "/image/backgrounded", 202, JSON, b'{"msg":"ok","uploads":[{"upload_id":"u1"}]}', BY_ALICE)
    assert learning.origins == []
    learning.pass_("GET", "/image/backgrounded/claim?upload_id=u1", 204, [], b"")
    learning.pass_("GET", "/image/backgrounded/claim?upload_id=unknown", 200, JSON, STORED)
    assert learning.origins == []
    learning.pass_("GET", "/image/backgrounded/claim?upload_id=u1", 200, JSON, b'{"files":[{"file":"one.png"}]}')
    learning.pass_("GET", "/image/backgrounded/claim?upload_id=u1", 200, JSON, b'{"files":[{"file":"one.png"}]}')
    (origin,) = learning.origins
    assert (origin.alias, origin.place) == ("one.png", Place.UPLOAD)
    assert origin.author is not None
    assert origin.author.pseudonym


def test_one_address_with_one_hash_is_told_once(learning: Learning) -> None:
    view = ("GET", f"/image/original?{PROXY}", 200, PNG)
    learning.pass_("GET", f"/image/process.webp?{PROXY}", 200, PNG, b"small")
    for _ in range(5):
        learning.pass_(*view, b"hello")
        learning.pass_("GET", f"/image/process.webp?{PROXY}", 200, PNG, b"small")
    learning.pass_(*view, b"other bytes")
    assert [origin.sha256 for origin in learning.origins] == [b"", HELLO, hashlib.sha256(b"other bytes").digest()]


def test_what_had_to_be_dropped_is_told_at_the_next_view(learning: Learning) -> None:
    learning.full = True
    learning.pass_("GET", f"/image/original?{PROXY}", 200, PNG, b"hello")
    learning.full = False
    learning.pass_("GET", f"/image/original?{PROXY}", 200, PNG, b"hello")
    assert len(learning.origins) == 1


def test_a_rejected_address_is_likely_to_be_the_only_image_rejected_meanwhile(learning: Learning) -> None:
    async def view() -> AnswerGiven:
        answer = learning.reject()
        learning.pass_("GET", f"/image/original?{PROXY}", 400, JSON, FAILED)
        await settle(learning)
        return answer

    answer = asyncio.run(view())
    (origin,) = learning.origins
    assert (origin.url, origin.sha256) == ("https://Pics.example/a.png", answer.sha256)
    assert origin.host is not None
    assert origin.host.confidence is Confidence.LIKELY


def test_a_rejected_address_without_a_match_has_no_hash_and_a_certain_host(learning: Learning) -> None:
    async def view() -> None:
        for image in (1, 2):
            learning.reject(image)
        for number in range(1, 4):
            learning.pass_("GET", f"/image/original?{PROXY}", 400, JSON, FAILED)
            await settle(learning, number)

    asyncio.run(view())
    (origin,) = learning.origins
    assert (origin.url, origin.sha256) == ("https://Pics.example/a.png", b"")
    assert origin.host is not None
    assert origin.host.confidence is Confidence.CERTAIN


@pytest.mark.parametrize("matched", [True, False])
@pytest.mark.parametrize("backgrounded", [False, True])
def test_a_rejected_upload_is_its_uploaders_only_where_it_is_matched(
    learning: Learning, backgrounded: bool, matched: bool
) -> None:
    async def upload() -> None:
        if matched:
            learning.reject()
        if backgrounded:
            uploads = b'{"msg":"ok","uploads":[{"upload_id":"u1"}]}'
            learning.pass_("POST", "/image/backgrounded", 202, JSON, uploads, BY_ALICE)
            learning.pass_("GET", "/image/backgrounded/claim?upload_id=u1", 422, JSON, FAILED)
        else:
            learning.pass_("POST", "/image", 400, JSON, FAILED, BY_ALICE)
        await settle(learning)

    asyncio.run(upload())
    assert len(learning.origins) == matched  # without a hash, nothing names the image
    for origin in learning.origins:
        assert origin.author is not None
        assert (origin.author.pseudonym != b"", origin.author.confidence) == (True, Confidence.LIKELY)
        assert (origin.sha256, origin.place) == (bytes([1]) * 32, Place.UPLOAD)


def test_an_answer_too_long_or_of_another_shape_is_passed_over(learning: Learning) -> None:
    bodies = (
        b'{"files":[{"file":"' + b"a" * JSON_MOST_BYTES + b'"}]}',
        b'{"files":[{"file":"' + b"a" * 257 + b'"},{"file":""}]}',
        b'{"files":"one"}',
        b"[]",
        b"{",
        b"",
        b"\xff",
    )
    for body in bodies:
        watch = learning.watch("POST", "/image")
        assert watch is not None
        watch.note_head(201, JSON)
        watch.note_piece(body)
        watch.note_end()
    assert learning.origins == []
