"""Cases as files: what ``audit export`` and ``audit report`` write."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from federation_audit.exports.formats import Exporter, ExportFormat, make_export
from federation_audit.reports.formats import ReportStyle, style_report

if TYPE_CHECKING:
    from federation_audit.cases import Case, Judged


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
    _write(style_report(case, style, answer_to=answer_to), output)


def _write(content: bytes, output: Path | None) -> None:
    if output is None:
        typer.echo(content, nl=False)
        return
    output.touch(mode=OWNER_ONLY)
    output.write_bytes(content)
