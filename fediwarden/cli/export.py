"""``audit export`` and ``audit report``: cases as files. The commands themselves come with the store: they read cases
from it and hand them to `write_export` and `write_report`."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from federation_audit.cases import Case, Judged
    from federation_audit.exports.export import Export


class ExportFormat(StrEnum):
    """What cases can be exported as; docs/reports.md says what each is for."""

    MASTODON = "mastodon"
    FEDIBLOCKHOLE = "fediblockhole"
    LEMMY_0_19 = "lemmy-0.19"
    LEMMY_1_0 = "lemmy-1.0"
    FEDISEER = "fediseer"
    FLAG = "flag"
    EVIDENCE = "evidence"


class ReportStyle(StrEnum):
    """What a report can be written as."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"


OWNER_ONLY: Final = 0o600


def make_export(form: ExportFormat, cases: "Sequence[Judged]", *, actor: str = "") -> "Export":
    """`cases` in the format `form`. `actor` is the ActivityPub id that flags are raised by."""
    from federation_audit.exports import activitypub, evidence, fediblockhole, fediseer, lemmy, mastodon

    makers: dict[ExportFormat, Callable[[Sequence[Judged]], Export]] = {
        ExportFormat.MASTODON: mastodon.domain_blocks_csv,
        ExportFormat.FEDIBLOCKHOLE: fediblockhole.blocklist_csv,
        ExportFormat.LEMMY_0_19: lemmy.block_list,
        ExportFormat.LEMMY_1_0: lemmy.block_calls,
        ExportFormat.FEDISEER: fediseer.statements,
        ExportFormat.FLAG: lambda given: activitypub.flags_jsonl(given, actor),
        ExportFormat.EVIDENCE: evidence.evidence_jsonl,
    }
    return makers[form](cases)


def write_export(form: ExportFormat, cases: "Sequence[Judged]", *, actor: str = "", output: Path | None = None) -> None:
    """Write the export to `output` (mode 0600), or to standard output; on standard error what is not in it, and why."""
    export = make_export(form, cases, actor=actor)
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
