"""The relay before a real pict-rs: nobody can tell, and it learns what it should."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
import pytest

from schemas.messages import Confidence, OriginObserved, Place, Verdict
from schemas.pseudonyms import Pseudonyms
from schemas.topics import ORIGINS
from tests.kafka import find_free_ports
from tests.pictrs.pictrs import PictRs, wait_until
from tests.pictrs.uploads import make_upload
from tests.pictrs.warden import Warden
from tests.processes import Process
from tests.topics import read_topic
from tests.unit.gateway.relay.test_tokens import token

pytestmark = [pytest.mark.pictrs, pytest.mark.kafka, pytest.mark.timeout(240)]

DOMAIN = "lemmy.example"
FETCHES_LOCALLY = True
"""Pictures of "other" servers are on this machine."""
WITHIN_S = 60.0
seeds = count(5000, 2)
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}


class Relayed:
    """A relay before `pictrs`, and a client of each."""

    def __init__(self, pictrs: PictRs, warden: Warden, folder: Path) -> None:
        self.port = find_free_ports(2)
        self.warden = warden
        self.data_dir = Path(warden.environment["FEDIWARDEN_DATA_DIR"])
        environment = {
            **warden.environment,
            "FEDIWARDEN_LOG__LEVEL": "info",
            "FEDIWARDEN_RELAY__HEALTH_PORT": str(self.port + 1),
            "FEDIWARDEN_RELAY__SETTLE_S": "3",
            "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS": pictrs.url,
            "FEDIWARDEN_TENANTS__DEFAULT__DOMAIN": DOMAIN,
        }
        self.process = Process(
            ["relay", "--port", str(self.port)], environment=environment, log_file=folder / "relay.log"
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60.0)
        self.direct = httpx.Client(base_url=pictrs.url, timeout=60.0)

    def ready(self) -> bool:
        try:
            parts = httpx.get(f"http://127.0.0.1:{self.port + 1}/readyz", timeout=5.0).json()["parts"]
        except httpx.TransportError:
            return False
        return bool(parts["kafka"]["ok"] and parts["answers"]["ok"])

    def upload(self, data: bytes, sub: str = "17", path: str = "/image") -> httpx.Response:
        """As Lemmy does it for one of its users."""
        headers = {"Authorization": f"Bearer {token({'sub': sub, 'iss': DOMAIN}).decode()}"}
        return self.client.post(path, files={"images[]": ("a", data)}, headers=headers)

    def origins(self, **wanted: Any) -> list[OriginObserved]:
        messages = [record.message for record in read_topic(self.warden.broker, ORIGINS)]
        return [
            each
            for each in messages
            if isinstance(each, OriginObserved) and all(getattr(each, name) == value for name, value in wanted.items())
        ]

    def the_origin(self, **wanted: Any) -> OriginObserved:
        """The only one that is as wanted, once it is there."""
        wait_until(lambda: self.origins(**wanted), WITHIN_S, f"an origin with {wanted}")
        (origin,) = self.origins(**wanted)
        return origin

    def verdict_of(self, origin: OriginObserved) -> Verdict:
        """The one on the image that the origin names by its hash."""
        return next(each for each in self.warden.records()[0] if each.sha256 == origin.sha256)


@pytest.fixture(scope="module")
def relayed(pictrs: PictRs, warden: Warden, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relayed]:
    relayed = Relayed(pictrs, warden, tmp_path_factory.mktemp("relay"))
    try:
        relayed.process.wait_for(relayed.ready, "ready")
        yield relayed
    finally:
        assert relayed.process.stop() == 0
    assert "eyJ" not in relayed.process.log
    assert "/remote/" not in relayed.process.log


class Remote(BaseHTTPRequestHandler):
    """Another server's pictures, by path."""

    pictures: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        data = self.pictures[self.path]
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def remote() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Remote) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/remote/"
        server.shutdown()


def put(remote: str, *, rejected: bool, query: str = "") -> str:
    """The address of a new picture there."""
    seed = next(seeds)
    url = f"{remote}{seed}.png{query}"
    Remote.pictures["/remote/" + url.partition("/remote/")[2]] = make_upload("png", rejected=rejected, seed=seed)
    return url


def test_answers_are_those_of_pict_rs_itself(relayed: Relayed) -> None:
    stored = relayed.upload(make_upload("png", rejected=False, seed=next(seeds)))
    assert stored.status_code == 201
    alias = stored.json()["files"][0]["file"]
    original = f"/image/original/{alias}"
    etag = relayed.direct.get(original).headers.get("etag", "")
    asked: list[tuple[str, str, dict[str, str]]] = [
        ("GET", original, {}),
        ("HEAD", original, {}),
        ("GET", original, {"Range": "bytes=10-99"}),
        ("HEAD", original, {"Range": "bytes=10-99"}),
        ("GET", original, {"Range": "bytes=9999999-"}),
        ("GET", original, {"If-None-Match": etag}),
        ("GET", original, {"Accept-Encoding": "gzip"}),
        ("GET", f"/image/original?alias={alias}", {}),
        ("GET", f"/image/process.webp?src={alias}&thumbnail=64", {}),
        ("GET", f"/image/details/original/{alias}", {}),
        ("GET", "/image/original/none.png", {}),
        ("GET", "/image/original?proxy=nonsense", {}),
        ("GET", "/image/original?proxy=http://127.0.0.1:9/", {}),
        ("POST", "/image", {}),
        ("GET", "/internal/hashes", {}),
        ("GET", "/healthz", {}),
        ("GET", "/nothing", {}),
    ]
    for method, target, headers in asked:
        through, direct = (each.request(method, target, headers=headers) for each in (relayed.client, relayed.direct))
        assert (through.status_code, through.content) == (direct.status_code, direct.content), (method, target, headers)
        ours, theirs = (
            sorted((name, value) for name, value in each.headers.multi_items() if name not in HOP_BY_HOP | {"date"})
            for each in (through, direct)
        )
        assert ours == theirs, (method, target, headers)


def test_more_than_pict_rs_takes_is_refused_in_its_own_words(relayed: Relayed) -> None:
    through, direct = (
        each.post("/image", files={"images[]": ("a.png", bytes(45 << 20))}) for each in (relayed.client, relayed.direct)
    )
    assert (through.status_code, through.json()) == (direct.status_code, direct.json())


@pytest.mark.parametrize("path", ["/image", "/image/backgrounded"])
def test_an_upload_is_known_by_alias_hash_and_the_pseudonym_of_who_uploaded(relayed: Relayed, path: str) -> None:
    sub = str(next(seeds))
    answer = relayed.upload(make_upload("jpeg", rejected=False, seed=next(seeds)), sub, path)
    if path == "/image/backgrounded":
        claim = "/image/backgrounded/claim?upload_id=" + answer.json()["uploads"][0]["upload_id"]
        answer = relayed.client.get(claim)
    alias = answer.json()["files"][0]["file"]
    origin = relayed.the_origin(alias=alias)
    assert origin.sha256 == hashlib.sha256(relayed.client.get(f"/image/original/{alias}").content).digest()
    assert relayed.verdict_of(origin)
    uploader = Pseudonyms.open(relayed.data_dir / "actors.json").pseudonym(f"local-user:{DOMAIN}:{sub}")
    assert origin.author is not None and uploader is not None
    assert (origin.author.pseudonym, origin.author.confidence) == (uploader.value, Confidence.CERTAIN)
    assert (origin.place, origin.host) == (Place.UPLOAD, None)


def test_a_download_is_known_by_alias_address_and_hash(relayed: Relayed, remote: str) -> None:
    url = put(remote, rejected=False)
    answer = relayed.client.get(f"/image/download?url={quote(url, safe='')}&resize=512")
    assert answer.status_code == 201
    origin = relayed.the_origin(url=url)
    assert (origin.alias, origin.place, origin.author) == (answer.json()["files"][0]["file"], Place.IMPORTED, None)
    assert relayed.verdict_of(origin)


@pytest.mark.parametrize("encoded", [True, False])
@pytest.mark.parametrize("how", ["original", "dropped", "process"])
def test_a_proxied_image_is_known_by_address_host_and_the_hash_that_was_judged(
    relayed: Relayed, remote: str, how: str, encoded: bool
) -> None:
    url = put(remote, rejected=False, query="?a=b")
    written = quote(url, safe="") if encoded else url
    if how == "original":
        assert relayed.client.get(f"/image/original?proxy={written}").status_code == 200
    elif how == "dropped":  # as Lemmy does: it wants pict-rs to have the image, and goes by the status
        with relayed.client.stream("GET", f"/image/original?proxy={written}") as response:
            assert response.status_code == 200
    else:
        assert relayed.client.get(f"/image/process.webp?proxy={written}&thumbnail=96").status_code == 200
    origin = relayed.the_origin(url=url)
    assert relayed.verdict_of(origin)
    assert origin.host is not None
    assert (origin.host.domain, origin.host.confidence) == ("127.0.0.1", Confidence.CERTAIN)
    assert origin.place is Place.PROXIED


def test_a_rejected_proxied_image_keeps_its_address_and_is_told_once(relayed: Relayed, remote: str) -> None:
    url = put(remote, rejected=True)
    for _ in range(3):
        refused = relayed.client.get(f"/image/original?proxy={quote(url, safe='')}")
        assert (refused.status_code, refused.json()["code"]) == (400, "failed-external-validation")
    origin = relayed.the_origin(url=url)
    assert origin.host is not None
    assert origin.host.confidence is Confidence.LIKELY
    assert relayed.verdict_of(origin).decision == "reject"


def test_a_rejected_upload_is_likely_to_be_who_uploaded_at_that_moment(relayed: Relayed) -> None:
    sub = str(next(seeds))
    # Those of the test before are some seconds old, more than the clocks may differ.
    refused = relayed.upload(make_upload("png", rejected=True, seed=next(seeds)), sub)
    assert (refused.status_code, refused.json()["code"]) == (400, "failed-external-validation")
    uploader = Pseudonyms.open(relayed.data_dir / "actors.json").pseudonym(f"local-user:{DOMAIN}:{sub}")
    assert uploader is not None

    def found() -> list[OriginObserved]:
        return [each for each in relayed.origins() if each.author and each.author.pseudonym == uploader.value]

    wait_until(found, WITHIN_S, "the uploader's origin")
    (origin,) = found()
    assert origin.author is not None
    assert origin.author.confidence is Confidence.LIKELY
    assert relayed.verdict_of(origin).decision == "reject"
