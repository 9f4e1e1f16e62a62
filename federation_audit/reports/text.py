"""A report as plain text, as a mail has it: lines of at most 76 characters, save addresses and hashes."""

import textwrap
from collections.abc import Iterable

from federation_audit.reports.report import Report

_WIDTH = 76


def as_text(report: Report) -> str:
    """The report as plain text; lines end with \\n."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterable[str]:
    for sentence in report.opening:
        yield from (_wrap(sentence), "")
    for section in report.sections:
        if not section.sentences and not section.items:
            continue
        yield from (section.heading, "-" * len(section.heading), "")
        for sentence in section.sentences:
            yield _wrap(sentence, "- ", "  ")
        if section.sentences:
            yield ""
        for item in section.items:
            yield _wrap(item.headline)
            yield from (_wrap(line, "   ", "     ") for line in item.lines)
            yield ""
    yield from report.closing


def _wrap(sentence: str, first: str = "", other: str = "") -> str:
    return textwrap.fill(
        sentence,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=other,
        break_long_words=False,
        break_on_hyphens=False,
    )
