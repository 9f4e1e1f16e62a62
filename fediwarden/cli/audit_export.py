"""``audit export`` and ``audit report``: cases from the store as files. Nothing is sent from here."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation_audit.exports.formats import ExportFormat
from federation_audit.reports.formats import ReportStyle
from fediwarden.cli.export import write_export, write_report
from fediwarden.cli.options import ConfigOption, DataDirOption, nested_flags, read_settings
from fediwarden.exits import FAILED

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from federation_audit.assessing.assessor import Assessed
    from federation_audit.deciding.caseload import Caseload
    from fediwarden.settings import Settings

OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it. Default: standard output.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``audit``."""
    app.command("export")(export)
    app.command("report")(report)


def export(
    form: Annotated[ExportFormat, typer.Argument(metavar="FORMAT", help=", ".join(ExportFormat))],
    output: OutputOption = None,
    actor: Annotated[
        str, typer.Option("--actor", metavar="ID", help="For flag: the ActivityPub id of your instance's actor.")
    ] = "",
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Write the decisions in force in the format of others; evidence: every incident. What is left out is said."""
    from federation_audit.exports.formats import Exporter
    from schemas.clock import now_ms

    settings = read_settings(config, nested_flags(data_dir=data_dir))
    with _reading(settings) as (connection, assessed, caseload):
        cases = caseload.exported(connection, assessed, form, now_ms())
    write_export(form, cases, exporter=Exporter(actor, settings.audit.targets.coop.types), output=output)


def report(
    domain: Annotated[str, typer.Argument(metavar="DOMAIN")],
    style: Annotated[ReportStyle, typer.Option("--format", help="text, markdown or json.")] = ReportStyle.TEXT,
    output: OutputOption = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="NAME", help="For whom. Default: who got the most of it.")
    ] = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Write the report to the admins of an instance: its confirmed incidents. Exit code 1: there are none."""
    from federation_audit.assessing.case import read_tenants
    from federation_audit.reports.report import NothingToReport
    from schemas.clock import now_ms
    from schemas.domains import NotADomain, normalise_domain

    try:
        name = normalise_domain(domain)
    except NotADomain as error:
        raise typer.BadParameter(str(error)) from error
    settings = read_settings(config, nested_flags(data_dir=data_dir))
    with _reading(settings) as (connection, assessed, caseload):
        tenants = read_tenants(connection, assessed, name)
        if tenant is not None and tenant not in tenants:
            known = f"those of {', '.join(tenants)} did" if tenants else "nobody's did"
            raise typer.BadParameter(f"no flagged image of {name} came to {tenant!r}; {known}")
        case = caseload.judged(connection, assessed, name, now_ms(), tenant=tenant).case
    try:
        write_report(case, style, answer_to=settings.audit.mail.answer_to, output=output)
    except NothingToReport as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(FAILED) from error
    if len(tenants) > 1 and tenant is None:
        typer.echo(f"for {tenants[0]}; with --tenant for another of: {', '.join(tenants)}", err=True)


@contextmanager
def _reading(settings: "Settings") -> "Iterator[tuple[Connection, Assessed, Caseload]]":
    from federation_audit.deciding.caseload import Caseload
    from fediwarden.cli.audit_store import assess_store, open_audit_store
    from fediwarden.policies.sentences import read_sentences

    with open_audit_store(settings) as store:
        assessed = assess_store(store, settings)
        with store.reading() as connection:
            pages = settings.audit.pages.public_url or ""
            yield connection, assessed, Caseload(read_sentences(settings), settings.tenant_domains, pages)
