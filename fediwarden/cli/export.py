"""Cases as files: what ``audit export`` and ``audit report`` write."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from federation_audit.exports.formats import Exporter, ExportFormat, make_export

if TYPE_CHECKING:
    from federation_audit.cases import Case, Judged


class ReportStyle(StrEnum):
    """What a report can be written as."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"


OWNER_ONLY: Final = 0o600


def write_export(
    form: ExportFormat,
    cases: "Sequence[Judged]",
    *,
    exporter: Exporter | None = None,
    output: Path | None = None,
) -> None:
    """Write the export to `output` (mode 0600), or to standard output; on standard error what is not in it, and why."""
    export = make_export(form, cases, exporter or Exporter())
    _write(export.content, output)
    for each in export.left_out:
        typer.echo(f"left out: {each.domain}: {each.reason}", err=True)


def write_report(case: "Case", style: ReportStyle, *, answer_to: str = "", output: Path | None = None) -> None:
    """Write the report on `case`, as `write_export` does. Raises `NothingToReport`."""
    from federation_audit.reports.json import as_json
    from federation_audit.reports.markdown import as_markdown
    from federation_audit.reports.report import make_report
    from federation_audit.reports.text import as_text

    report = make_report(case, answer_to=answer_to)
    if style is ReportStyle.JSON:
        content = as_json(case)
    else:
        content = (as_text if style is ReportStyle.TEXT else as_markdown)(report).encode()
    _write(content, output)


def _write(content: bytes, output: Path | None) -> None:
    if output is None:
        typer.echo(content, nl=False)
        return
    output.touch(mode=OWNER_ONLY)
    output.write_bytes(content)
