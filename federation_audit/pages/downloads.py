"""Exports: what was decided, in the formats of others, to take away; each with what it leaves out, and why."""

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

from federation_audit.accounts.roles import Role
from federation_audit.cases import Judged
from federation_audit.exports.export import Export, LeftOut
from federation_audit.exports.formats import Exporter, ExportFormat, make_export
from federation_audit.pages.caseload import caseload_of
from federation_audit.pages.outgoing import as_file
from federation_audit.pages.people import ACTIONS
from federation_audit.pages.site import Area
from federation_audit.pages.visits import Here, Visit
from federation_audit.sending.drafting import Way, ready_ways

LEFT_OUT_MOST: Final = 50
"""How many of those that a file leaves out the page names; the file's own answer names no more."""

FORMATS: Final = {
    ExportFormat.MASTODON: (
        "Mastodon, domain blocks (CSV)",
        "Moderation, Federation, Import. Mastodon shows what it would do, and passes over domains that it blocks.",
    ),
    ExportFormat.FEDIBLOCKHOLE: (
        "FediBlockHole (CSV)",
        "As a source. By default it takes domain and severity alone; restrict media needs import_fields with"
        " reject_media.",
    ),
    ExportFormat.LEMMY_0_19: (
        "Lemmy 0.19, list of domains",
        "For the page Blocked instances, one after the other.",
    ),
    ExportFormat.LEMMY_1_0: (
        "Lemmy 1.0, block calls (JSON lines)",
        "The body of each POST /api/v4/admin/instance/block, with its end.",
    ),
    ExportFormat.FEDISEER: (
        "Fediseer (JSON lines)",
        "One call a line: a censure where defederation was decided, else a hesitation, with evidence.",
    ),
    ExportFormat.FLAG: (
        "ActivityPub Flag (JSON lines)",
        "Reports without media, in Lemmy's dialect. Your server has to sign and deliver them.",
    ),
    ExportFormat.COOP: ("Coop (JSON lines)", "The body of each POST /api/v1/report, one confirmed incident a line."),
    ExportFormat.EVIDENCE: (
        "Evidence (JSON lines)",
        "Every incident of every instance, confirmed or not, for your own counting. Do not publish it: what is not"
        " confirmed is a suspicion.",
    ),
}
"""Each format's name, and what to do with it."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A format as the page offers it; `made` is None where it is made on demand alone."""

    form: ExportFormat
    name: str
    use: str
    count: int | None
    left_out: tuple[LeftOut, ...]


def downloads_area() -> Area:
    """Exports, for everybody who reads."""
    router = APIRouter()

    @router.get("/exports", response_model=None)
    def show(here: Here) -> Response:
        assessed = here.site.assessor.newest()
        with here.site.database.reading() as connection:
            decided = caseload_of(here.site).decided(connection, assessed, here.now_ms)
        exporter = exporter_of(here)
        audit = here.site.surroundings.audit
        ways = ready_ways(audit.mail, audit.targets)
        return here.page(
            "exports.html",
            "Exports",
            offers=[_offer(form, decided, exporter) for form in FORMATS],
            decided=decided,
            actions=ACTIONS,
            most=LEFT_OUT_MOST,
            ready={each.value for each in ways},
            may_send=here.user.role.includes(Role.ADMIN),
            own_lemmy=audit.targets.lemmy.address if Way.LEMMY in ways else "",
        )

    @router.get("/exports/{form}", response_model=None)
    def take(here: Here, form: str) -> Response:
        try:
            wanted = ExportFormat(form)
        except ValueError:
            raise HTTPException(404) from None
        with here.site.database.reading() as connection:
            cases = caseload_of(here.site).exported(connection, here.site.assessor.newest(), wanted, here.now_ms)
        made = make_export(wanted, cases, exporter_of(here))
        return as_file(made.content, made.media_type, made.name)

    return Area("Exports", "/exports", Role.VIEWER, router)


def exporter_of(here: Visit) -> Exporter:
    """Who exports, by the settings, and by ``?actor=`` in whose name flags are raised."""
    types = here.site.surroundings.audit.targets.coop.types
    return Exporter(here.request.query_params.get("actor", "")[:300], types, here.user.name)


def _offer(form: ExportFormat, decided: list[Judged], exporter: Exporter) -> Offer:
    name, use = FORMATS[form]
    if form in (ExportFormat.EVIDENCE, ExportFormat.FLAG):
        return Offer(form, name, use, None, ())
    made = make_export(form, decided, exporter)
    undecided = [LeftOut(each.case.domain, _why(each)) for each in decided if not _is_in(made, each, form)]
    return Offer(form, name, use, _count(made, form), (*made.left_out, *undecided))


def _count(made: Export, form: ExportFormat) -> int:
    lines = made.content.count(b"\n")
    return lines - 1 if form in (ExportFormat.MASTODON, ExportFormat.FEDIBLOCKHOLE) else lines


def _is_in(made: Export, judged: Judged, form: ExportFormat) -> bool:
    """Whether the export has the instance, or says itself why not. Blocklists are silent about what is no block."""
    if form in (ExportFormat.FEDISEER, ExportFormat.COOP):
        return True
    is_block = judged.action.value in ("restrict-media", "defederate")
    return is_block or any(each.domain == judged.case.domain for each in made.left_out)


def _why(judged: Judged) -> str:
    return f"the decision is {ACTIONS[judged.action][0]}: nothing to block"
