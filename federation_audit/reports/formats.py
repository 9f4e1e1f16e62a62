"""Every style that a report can be written in, by name."""

from enum import StrEnum

from federation_audit.cases import Case
from federation_audit.reports.json import as_json
from federation_audit.reports.markdown import as_markdown
from federation_audit.reports.report import make_report
from federation_audit.reports.text import as_text


class ReportStyle(StrEnum):
    """What a report can be written as."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"


def style_report(case: Case, style: ReportStyle, *, answer_to: str = "") -> bytes:
    """The report on `case` in this style, UTF-8. Raises `NothingToReport`."""
    report = make_report(case, answer_to=answer_to)
    if style is ReportStyle.JSON:
        return as_json(case)
    return (as_text if style is ReportStyle.TEXT else as_markdown)(report).encode()
