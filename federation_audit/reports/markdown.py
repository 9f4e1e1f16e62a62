"""A report as Markdown, for an issue, a chat or a post. Whatever could be markup in it is escaped; addresses are in
angle brackets, and so links."""

import re
from collections.abc import Iterable

from federation_audit.neutralising import http_url, markdown
from federation_audit.reports.report import Report

_LINE_MOST = 4000
_URL = re.compile(r"https?://[^\s<>]*[^\s<>,.;:!?)]")


def as_markdown(report: Report) -> str:
    """The report as Markdown (CommonMark); lines end with \\n."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterable[str]:
    yield from (f"# {_escape(report.subject)}", "")
    for sentence in report.opening:
        yield from (_escape(sentence), "")
    for section in report.sections:
        if not section.sentences and not section.items:
            continue
        yield from (f"## {_escape(section.heading)}", "")
        yield from (f"- {_escape(sentence)}" for sentence in section.sentences)
        if section.sentences:
            yield ""
        for item in section.items:
            yield from (f"### {_escape(item.headline)}", "")
            yield from (f"- {_escape(line)}" for line in item.lines)
            yield ""
    yield "  \n".join(_escape(line) for line in report.closing)


def _escape(line: str) -> str:
    """`line` as Markdown that shows it; a whole http(s) address becomes a link."""
    parts = []
    end = 0
    for found in _URL.finditer(line):
        url = http_url(found[0])
        if url == found[0]:
            parts += [_plain(line[end : found.start()]), f"<{url}>"]
            end = found.end()
    return "".join([*parts, _plain(line[end:])])


def _plain(text: str) -> str:
    """Escaped; the spaces at the ends, which keep it apart from a link, stay."""
    inner = text.strip()
    if not inner:
        return " " if text else ""
    before, after = " " * text.startswith(" "), " " * text.endswith(" ")
    return f"{before}{markdown(inner, _LINE_MOST)}{after}"
