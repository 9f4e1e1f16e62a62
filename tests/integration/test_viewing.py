"""Looking at pictures that a real scanner archived on a real Kafka, over HTTP."""

import asyncio
import io
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from federation_audit.accounts.tables import ACTIONS
from federation_audit.pages.service import Pages
from federation_audit.pages.settings import PagesSettings
from federation_audit.pages.site import Surroundings
from federation_audit.settings import AuditSettings
from federation_audit.store.dump import dump_lines
from federation_audit.store.engine import Store
from federation_audit.viewing.settings import ViewingSettings
from federation_audit.viewing.tables import VIEWS
from schemas.broker import BrokerSettings, Producer
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import Decision, ImageSubmitted
from schemas.topics import DAY_MS, IMAGES_ARCHIVE, VERDICTS
from tests.archives import submitted, verdict_on
from tests.pages import running_pages
from tests.pictures import animation, scene
from tests.scanners import KEYRING, observing, scanning, submit
from tests.stores import write
from tests.unit.federation_audit.pages.test_pages import Visitor
from tests.unit.scanner.stub_models import RedModel

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

WHY = "no rule says what it is"


def file(red: int, seed: int) -> bytes:
    out = io.BytesIO()
    picture = scene(seed, 640, 480, colour=(red, 30, 30))
    picture.save(out, "JPEG", quality=92)
    return out.getvalue()


REVIEWED = submitted(file(190, 1), KEYRING, scan_id="reviewed")
MOVING = submitted(
    animation("gif-animated", [(190, 30, 30), (180, 90, 90), (200, 60, 20)], [200, 200, 200], size=(320, 240)),
    KEYRING,
    scan_id="moving",
)
REJECTED = submitted(file(255, 3), KEYRING, scan_id="rejected")
TURNED = submitted(file(150, 4), KEYRING, scan_id="turned")
OTHERS = submitted(file(150, 5), Keyring.generate(), scan_id="others")
GONE = submitted(file(150, 6), KEYRING, scan_id="gone")


class Place(NamedTuple):
    pages: Pages
    kafka: BrokerSettings


@pytest.fixture
def place(fresh_kafka: BrokerSettings, tmp_path: Path) -> Iterator[Place]:
    """Pages over a store and a Kafka, in which the scanner has judged what it could open."""

    async def scan() -> list[object]:
        async with observing(fresh_kafka) as (observed, producer), scanning(fresh_kafka, models=[RedModel()]):
            await submit(producer, REVIEWED, MOVING, REJECTED, TURNED)
            await observed.until(lambda: len(observed.verdicts) == 4 and len(observed.messages(IMAGES_ARCHIVE)) >= 3)
            await submit(producer, OTHERS, topic=IMAGES_ARCHIVE)
            await producer.publish(IMAGES_ARCHIVE, None, key=TURNED.sha256)  # as the enforcer does
            return list(observed.messages(VERDICTS))

    verdicts = asyncio.run(scan())
    decisions = {each.scan_id: each.decision for each in verdicts}  # type: ignore[attr-defined]
    assert (decisions["reviewed"], decisions["rejected"]) == (Decision.REVIEW, Decision.REJECT)
    assert decisions["turned"] is not Decision.REJECT
    more = [
        verdict_on(OTHERS, Decision.REVIEW),
        verdict_on(GONE, Decision.REVIEW, at=now_ms() - 9 * DAY_MS),
    ]
    viewing = ViewingSettings(enabled=True, plain=True)
    around = Surroundings(audit=AuditSettings(viewing=viewing), broker=fresh_kafka, keyring=KEYRING)
    with running_pages(tmp_path, PagesSettings(port=0), surroundings=around) as pages:
        assert isinstance(pages.site.database, Store)
        write(pages.site.database, [*verdicts, *more])  # type: ignore[list-item]
        yield Place(pages, fresh_kafka)


@contextmanager
def logged_in(pages: Pages, name: str) -> Iterator[Visitor]:
    visitor = Visitor(pages.url)
    with closing(visitor.http):
        assert visitor.log_in(name).status_code == 303
        visitor.get("/account")
        yield visitor


def path(image: ImageSubmitted) -> str:
    return f"/picture/{image.tenant}/{image.sha256.hex()}"


def source(html: str) -> str:
    found = re.search(r'<img src="([^"]+)"', html)
    assert found is not None, re.findall(r'role="(?:alert|status)">([^<]*)', html)
    return found[1]


def opened(content: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture


def sharpest(picture: Image.Image) -> float:
    """The steepest edge of a picture, whatever its size was."""
    grey = np.asarray(picture.convert("L").resize((256, 192)), dtype=np.float64)
    return float(abs(np.diff(grey, axis=1)).max())


def test_a_picture_is_shown_step_by_step_once_and_on_record(place: Place, tmp_path: Path) -> None:
    with logged_in(place.pages, "reviewer") as reviewer, logged_in(place.pages, "admin") as admin:
        reviewer.get(path(REVIEWED))
        shown = {}
        for step in ("blurred", "grey", "plain"):
            page = reviewer.post(path(REVIEWED), {"reason": WHY, "step": step, "sure": "yes"})
            assert page.status_code == 200
            address = source(page.text)
            assert admin.get(address).status_code == 404  # another session's
            assert reviewer.get(address, headers={"sec-fetch-dest": "document"}).status_code == 404
            assert reviewer.get(address, headers={"sec-fetch-site": "cross-site"}).status_code == 404
            got = reviewer.get(address, headers={"sec-fetch-dest": "image", "sec-fetch-site": "same-origin"})
            assert got.status_code == 200
            assert got.headers["content-type"] == "image/jpeg"
            assert got.headers["cache-control"] == "no-store"
            assert got.headers["content-disposition"].startswith("inline")
            assert got.headers["cross-origin-resource-policy"] == "same-origin"
            assert got.headers["content-security-policy"].startswith("default-src 'none'; sandbox")
            assert got.headers["x-content-type-options"] == "nosniff"
            assert reviewer.get(address).status_code == 404  # a second time
            shown[step] = opened(got.content)
            reviewer.get(path(REVIEWED))
        assert [shown[step].mode for step in shown] == ["L", "L", "RGB"]
        assert [max(shown[step].size) for step in shown] == [256, 384, 512]
        assert sharpest(shown["blurred"]) < 0.6 * sharpest(shown["grey"]) < 0.6 * sharpest(shown["plain"])

        # Frames of an animation, each on record; the worst one first.
        reviewer.get(path(MOVING))
        page = reviewer.post(path(MOVING), {"reason": WHY, "step": "blurred"})
        assert "of 3. Given once" in page.text
        first = opened(reviewer.get(source(page.text)).content)
        page = reviewer.post(path(MOVING), {"reason": WHY, "step": "blurred", "frame": "2"})
        assert "frame 2 of 3" in page.text
        assert np.asarray(first).shape == (192, 256)

        with place.pages.site.database.reading() as connection:
            views = connection.execute(select(VIEWS).order_by(VIEWS.c.id)).all()
            actions = connection.execute(select(ACTIONS).where(ACTIONS.c.what == "picture viewed")).all()
            content = "\n".join(dump_lines(connection))
        assert [(each.who, each.veil, each.scan_id) for each in views] == [
            ("reviewer", "blurred", "reviewed"),
            ("reviewer", "grey", "reviewed"),
            ("reviewer", "plain", "reviewed"),
            ("reviewer", "blurred", "moving"),
            ("reviewer", "blurred", "moving"),
        ]
        assert len(actions) == 5
        assert "picture viewed" in admin.get("/actions").text
        assert "reviewer, as it is" in admin.get(path(REVIEWED)).text
        assert "JFIF" not in content
    for kept in tmp_path.rglob("*"):
        if kept.is_file():
            assert b"JFIF" not in kept.read_bytes(), kept


def test_what_cannot_be_shown_is_explained_and_not_on_record(place: Place) -> None:
    said = {
        REJECTED.sha256: "This picture was rejected",
        TURNED.sha256: "Its frames were erased",
        OTHERS.sha256: "cannot be opened: key",
        GONE.sha256: "The archive has no frames of it",
    }
    with logged_in(place.pages, "reviewer") as reviewer:
        for image in (REJECTED, TURNED, OTHERS, GONE):
            reviewer.get(path(image))
            answer = reviewer.post(path(image), {"reason": WHY})
            assert answer.status_code == 404
            assert said[image.sha256] in answer.text
            assert "<img" not in answer.text

        # What is archived of an image that was turned against, and judged anew and kept since, is its newest record.
        async def archive_again() -> None:
            async with Producer(place.kafka, client_id="test") as producer:
                await producer.publish(IMAGES_ARCHIVE, TURNED, key=TURNED.sha256)

        with place.pages.site.database.reading() as connection:
            assert connection.execute(select(VIEWS)).all() == []
        asyncio.run(archive_again())
        assert "<img" in reviewer.post(path(TURNED), {"reason": WHY}).text
