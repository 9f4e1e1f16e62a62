"""``python -m fediwarden.reference``: write the references of docs/ anew. From a source tree only."""

from pathlib import Path

from fediwarden.metrics import reference as metrics
from fediwarden.reference import commands, settings

DOCS = Path(__file__).resolve().parents[2] / "docs"


def put(page: Path, begin: str, reference: str, end: str) -> None:
    """Set `reference` between the marks of `page`. Raises ValueError when a mark is missing."""
    before, begun, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"{page} lacks the line {begin if not begun else end}")
    page.write_text(f"{before}{begin}\n\n{reference.strip()}\n\n{end}{after}")


if __name__ == "__main__":
    put(DOCS / "settings.md", settings.BEGIN, settings.settings_reference(), settings.END)
    put(DOCS / "commands.md", commands.BEGIN, commands.command_reference(), commands.END)
    put(DOCS / "metrics.md", metrics.BEGIN, metrics.metrics_reference(), metrics.END)
