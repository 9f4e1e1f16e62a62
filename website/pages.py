"""Lay out the pages of the site: those of docs/, and those that stand at the top of the source tree.

    python -m website.pages              # `make docs` does it, and builds the site from them

In the source tree a link such as ``../ARCHITECTURE.md`` opens a file. In the site the top-level pages stand beside the
others, and of a link to any other file outside docs/ only the text is left.
"""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = ROOT / "website" / "pages"
FROM_THE_TOP = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}

LINK = re.compile(r"\[([^\]]*)\]\(([^()\s:#]+)(#[^()\s]*)?\)")
"""A link within the tree: an address has a colon, an anchor of the same page no path."""


def lay_out(pages: Path = PAGES) -> None:
    """Write every page and picture of the site into `pages`, and remove what was there before."""
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(DOCS, pages)
    shutil.copytree(ROOT / "website" / "assets", pages / "assets")
    for file in DOCS.rglob("*.md"):
        (pages / file.relative_to(DOCS)).write_text(_relink(file))
    for source, page in FROM_THE_TOP.items():
        (pages / page).write_text(_relink(ROOT / source))


def _relink(file: Path) -> str:
    """A page's text, its links led to where their targets stand in the site."""

    def relink(link: re.Match[str]) -> str:
        text, path, anchor = link[1], link[2], link[3] or ""
        target = (file.parent / path).resolve()
        if target.is_relative_to(DOCS):
            return f"[{text}]({target.relative_to(DOCS)}{anchor})"
        page = FROM_THE_TOP.get(str(target.relative_to(ROOT)))
        return f"[{text}]({page}{anchor})" if page else text

    return LINK.sub(relink, file.read_text())


if __name__ == "__main__":
    lay_out()
