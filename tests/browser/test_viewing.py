"""A reviewer looks at a picture, by keyboard, one step at a time; an admin sees that they did."""

import asyncio
import io
from collections.abc import Callable, Iterator

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from federation_audit.pages.service import Pages
from federation_audit.pages.settings import PagesSettings
from federation_audit.pages.site import Surroundings
from federation_audit.settings import AuditSettings
from federation_audit.store.engine import Store
from federation_audit.viewing.settings import ViewingSettings
from schemas.broker import BrokerSettings, Producer
from schemas.keyring import Keyring
from schemas.messages import Decision
from schemas.topics import IMAGES_ARCHIVE
from tests.archives import submitted, verdict_on
from tests.browser.contrast import TEXTS, contrast, parse_colour
from tests.browser.test_looks import LOOKS, OVERFLOW, SMALL, UNLABELLED
from tests.pages import running_pages
from tests.pictures import scene
from tests.stores import write

pytestmark = [pytest.mark.browser, pytest.mark.kafka, pytest.mark.timeout(900)]

KEYRING = Keyring.generate()
LOADED = "image => image.complete && image.naturalWidth > 0"


def file(seed: int) -> bytes:
    out = io.BytesIO()
    scene(seed, 640, 480, colour=(190, 90, 40)).save(out, "JPEG", quality=92)
    return out.getvalue()


SEEN = submitted(file(1), KEYRING, scan_id="seen")
REJECTED = submitted(file(2), KEYRING, scan_id="rejected")
PATH = f"/picture/default/{SEEN.sha256.hex()}"


@pytest.fixture(scope="module", autouse=True)
def pages(make_topics: Callable[[], BrokerSettings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Pages on which pictures may be looked at, and an archive with one: made before there is a browser, whose driver
    keeps this thread from running an event loop."""
    kafka = make_topics()

    async def archive() -> None:
        async with Producer(kafka, client_id="test") as producer:
            await producer.publish(IMAGES_ARCHIVE, SEEN, key=SEEN.sha256)

    asyncio.run(archive())
    around = Surroundings(
        audit=AuditSettings(viewing=ViewingSettings(enabled=True, plain=True)),
        broker=kafka,
        keyring=KEYRING,
        sentences={"explicit": "A model takes it for a sexual picture."},
    )
    with running_pages(tmp_path_factory.mktemp("viewing"), PagesSettings(port=0), surroundings=around) as pages:
        assert isinstance(pages.site.database, Store)
        write(pages.site.database, [verdict_on(SEEN, Decision.REVIEW), verdict_on(REJECTED, Decision.REJECT)])
        yield pages


def size_shown(page: Page) -> tuple[int, int]:
    image = page.locator("figure img")
    page.wait_for_function("() => { const image = document.querySelector('figure img'); return image.complete; }")
    assert image.evaluate(LOADED)
    return image.evaluate("image => [image.naturalWidth, image.naturalHeight]")  # type: ignore[no-any-return]


def test_a_picture_is_seen_one_step_at_a_time_by_keyboard_and_never_twice(
    log_in: Callable[..., Page], photograph: Callable[[Page, str], None]
) -> None:
    page = log_in("reviewer", viewport={"width": 1280, "height": 800})
    page.goto(PATH)
    photograph(page, "picture-before-light")
    expect(page.locator("main img")).to_have_count(0)
    button = page.get_by_role("button", name="Show it grey and strongly blurred")
    button.focus()
    page.keyboard.press("Enter")  # without a reason the browser itself asks for it
    expect(page.locator("main img")).to_have_count(0)
    page.get_by_label("Why do you need to see it?").fill("the rules contradict each other")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("figure img")
    assert size_shown(page) == [256, 192]
    address = page.locator("figure img").get_attribute("src")
    photograph(page, "picture-blurred-light")

    page.get_by_label("I have to see more").check()
    page.get_by_role("button", name="less blurred").click()
    page.wait_for_selector("figure img[alt='The picture, grey, blurred']")
    assert size_shown(page) == [384, 288]
    photograph(page, "picture-grey-light")
    page.get_by_label("I have to see more").check()
    page.get_by_role("button", name="as it is").click()
    page.wait_for_selector("figure img[alt='The picture, as it is']")
    assert size_shown(page) == [512, 384]

    page.wait_for_load_state()  # until then nothing listens for keys
    page.locator("h1").click()
    page.keyboard.press("h")
    page.wait_for_selector("figure img", state="detached")
    assert page.get_by_text("reviewer, as it is").is_visible()
    assert page.goto(str(address)).status == 404  # type: ignore[union-attr]

    admin = log_in("admin", viewport={"width": 1280, "height": 800})
    admin.goto("/views")
    expect(admin.locator("tbody tr")).to_have_count(3)
    expect(admin.get_by_text("the rules contradict each other")).to_have_count(3)
    photograph(admin, "views-light")
    admin.goto(f"/picture/default/{REJECTED.sha256.hex()}")
    assert admin.get_by_text("This picture was rejected").is_visible()
    photograph(admin, "picture-rejected-light")


def test_it_works_without_scripts_on_a_phone_in_the_dark(
    log_in: Callable[..., Page], photograph: Callable[[Page, str], None]
) -> None:
    page = log_in("admin", **LOOKS["phone-dark"], java_script_enabled=False)
    page.goto(PATH)
    page.get_by_label("Why do you need to see it?").fill("two reviewers do not agree")
    page.get_by_role("button", name="Show it grey and strongly blurred").click()
    page.wait_for_selector("figure img")
    page.wait_for_load_state()
    photograph(page, "picture-blurred-phone-dark")
    assert page.locator("figure img").bounding_box()["width"] <= 360  # type: ignore[index]


def test_the_pages_can_be_read_and_fit(log_in: Callable[..., Page], photograph: Callable[[Page, str], None]) -> None:
    for look, options in LOOKS.items():
        page = log_in("admin", **options)
        for path in (PATH, f"/picture/default/{REJECTED.sha256.hex()}", "/views"):
            page.goto(path)
            assert page.evaluate(OVERFLOW) == [], f"{look} {path}"
            assert page.evaluate(UNLABELLED) == [], f"{look} {path}"
            assert page.evaluate(SMALL) == [], f"{look} {path}"
            expect(page.locator("h1")).to_have_count(1)
            for text, colour, ground, size, _ in page.evaluate(TEXTS):
                ratio = contrast(parse_colour(colour), parse_colour(ground))
                assert ratio >= (3.0 if size == 0 or size >= 24 else 4.5), f"{look} {path}: {text!r}"
            photograph(page, f"{'views' if path == '/views' else path[-4:]}-{look}")


def test_what_the_browser_shows_is_what_the_veil_left(log_in: Callable[..., Page]) -> None:
    page = log_in("reviewer")
    page.goto(PATH)
    page.get_by_label("Why do you need to see it?").fill("to see whether it is grey")
    page.get_by_role("button", name="Show it grey").click()
    page.wait_for_selector("figure img")
    size_shown(page)
    with Image.open(io.BytesIO(page.locator("figure img").screenshot())) as shown:
        inner = shown.convert("RGB").crop((8, 8, shown.width - 8, shown.height - 8))
    assert all(max(pixel) - min(pixel) <= 2 for _, pixel in inner.getcolors(1 << 20))  # type: ignore[union-attr, misc]
