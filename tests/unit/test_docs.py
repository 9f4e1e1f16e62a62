"""What docs/ and the pages at the top of the tree say of each other. The site itself is built by `make docs`."""

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from website.pages import FROM_THE_TOP, lay_out

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
MARKDOWN = MarkdownIt("commonmark").enable("table")


@cache
def tokens(page: Path) -> tuple[Token, ...]:
    return tuple(MARKDOWN.parse(page.read_text()))


def links(page: Path) -> Iterator[str]:
    """Where a page's links and pictures lead."""
    for token in tokens(page):
        for part in token.children or ():
            target = part.attrs.get("href") or part.attrs.get("src")
            if target is not None:
                yield str(target)


def anchors(page: Path) -> set[str]:
    """The anchors that code hosts and the site give to a page's headings: a repeated one is numbered by the first."""
    found: set[str] = set()
    for opening, inline in zip(tokens(page), tokens(page)[1:], strict=False):
        if opening.type == "heading_open":
            text = "".join(part.content for part in inline.children or () if part.type in ("text", "code_inline"))
            found.add(re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-"))
    return found


def broken(page: Path) -> list[str]:
    """The links of a page within the tree that lead nowhere."""
    wrong = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_anchor_within_the_tree_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# One `two`: three\n\n    # no heading\n")
    page.write_text(
        "# Here\n\n[a](other.md#one-two-three) [b](other.md#no-heading) [c](gone.md) [d](#here) [e](#there)\n"
        "`[f](code.md)` <https://example.org> ![g](gone.png)\n"
    )
    assert broken(page) == ["other.md#no-heading", "gone.md", "#there", "gone.png"]


def test_the_navigation_has_every_page_once_and_no_other() -> None:
    project = tomllib.loads((ROOT / "website" / "zensical.toml").read_text())["project"]

    def walk(entries: list[object]) -> Iterator[str]:
        for entry in entries:
            if isinstance(entry, str):
                yield entry
            else:
                assert isinstance(entry, dict)
                for value in entry.values():
                    yield from walk([value] if isinstance(value, str) else value)

    named = list(walk(project["nav"]))
    there = [page.name for page in (ROOT / "docs").glob("*.md")] + list(FROM_THE_TOP.values())
    assert sorted(named) == sorted(there), "website/zensical.toml names the pages of docs/"


def test_links_are_led_to_where_the_site_has_their_targets(tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "left-over.md").touch()
    lay_out(pages)
    assert not (pages / "left-over.md").exists()
    for page in pages.glob("*.md"):
        assert [link for link in links(page) if link.startswith("../") or link.startswith("docs/")] == []
    assert "(topics.md)" in (pages / "architecture.md").read_text()
    assert "(architecture.md)" in (pages / "contributing.md").read_text()
    assert (pages / "images").is_dir()
