"""The pictures of docs/images: every page of a running demo, light, dark and as wide as a phone.

python -m tests.browser.gallery --pages http://127.0.0.1:14061 --password PASSWORD docs/images

Needs a Chromium and the demo (`fediwarden demo`) with its admin's password; for the pictures of a rescan, one that was
ordered in it (`fediwarden rescan --since 7d --dry-run`). Long pages are cut; colours are reduced.
"""

import argparse
import io
import os
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.conftest import CHROMIUM

WIDE, PHONE, MOST = 1280, 390, 1700
COLOURS = 160
INSTANCE = "starfall.example"
PAGES = {
    "overview": "/overview",
    "instances": "/instances",
    "instance": f"/instances/{INSTANCE}",
    "instance-incidents": f"/instances/{INSTANCE}/incidents",
    "review": "/review",
    "reviewed": "/reviewed",
    "decisions": "/decisions",
    "decision": f"/decisions/{INSTANCE}",
    "report": f"/decisions/{INSTANCE}/report",
    "exports": "/exports",
    "sent": "/sent",
    "rescans": "/rescans",
    "users": "/users",
    "actions": "/actions",
    "account": "/account",
}


def main() -> None:
    """Take them."""
    arguments = argparse.ArgumentParser(prog="python -m tests.browser.gallery", description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--pages", required=True)
    arguments.add_argument("--password", required=True)
    arguments.add_argument("--name", default="admin")
    options = arguments.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*root, "--disable-gpu"])
        for look, scheme, width in (("light", "light", WIDE), ("dark", "dark", WIDE), ("phone", "light", PHONE)):
            page = _open(browser, options, scheme, width, options.folder / f"login-{look}.png")
            for name, path in PAGES.items():
                page.goto(path)
                _keep(page, options.folder / f"{name}-{look}.png", width)
            page.goto("/rescans")
            if page.locator("[data-opens]").count():
                page.locator("[data-opens]").first.click()
                page.wait_for_url("**/rescans/*")
                _keep(page, options.folder / f"rescan-{look}.png", width)
            page.context.close()
        browser.close()


def _open(browser: Browser, options: argparse.Namespace, scheme: str, width: int, login: Path) -> Page:
    context = browser.new_context(
        base_url=options.pages,
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto("/login")
    _keep(page, login, width)
    page.get_by_label("Name").fill(options.name)
    page.get_by_label("Password").fill(options.password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/overview")
    return page


def _keep(page: Page, path: Path, width: int) -> None:
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    cut = picture.crop((0, 0, width, min(picture.height, MOST)))
    cut.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
