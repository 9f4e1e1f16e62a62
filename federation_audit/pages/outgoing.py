"""What leaves the house: the report, the plan of a sending, its confirmation, and what was sent."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Select, func, select
from starlette.exceptions import HTTPException
from starlette.responses import Response

from federation_audit.accounts.roles import Role
from federation_audit.assessing.assessor import Assessed
from federation_audit.assessing.case import read_tenants
from federation_audit.cases import ContactKind, Judged
from federation_audit.deciding.letters import write_down_letter
from federation_audit.exports.coop import incident_id
from federation_audit.exports.export import LeftOut, NotExpressible
from federation_audit.exports.fediseer import Opinion
from federation_audit.exports.lemmy import blocked_domain
from federation_audit.pages.asking import run_within
from federation_audit.pages.caseload import Shown, caseload_of
from federation_audit.pages.cells import Cell, Link, Mark, Moment, Said, Tone
from federation_audit.pages.decisions import known_domain, must_be, path_of
from federation_audit.pages.people import ACTIONS, people_of
from federation_audit.pages.site import Area
from federation_audit.pages.table import Column, Filter, Rows, Selection, Table, ordered
from federation_audit.pages.text import plain_text
from federation_audit.pages.visits import Here, Visit
from federation_audit.reports.formats import ReportStyle, style_report
from federation_audit.reports.report import NothingToReport, make_report
from federation_audit.reports.text import as_text
from federation_audit.sending.confirming import Channel, Confirmation, Outcome, Plan, Sent
from federation_audit.sending.drafting import Drafts, Way, Wish, ready_ways
from federation_audit.sending.errors import Changed, NotConfirmed, NotSent
from federation_audit.sending.journal import ABANDONED, Entry, StoreJournal, as_entry, entries_about, entry_of
from federation_audit.sending.tables import JOURNAL

_GOOD_FOR_MS: Final = 1_800_000
"""How long a plan that was shown can be confirmed."""

OUTCOMES: Final[dict[str, tuple[Tone, str]]] = {
    Outcome.ACCEPTED.value: ("good", "The other side said that it took it."),
    Outcome.REFUSED.value: ("bad", "The other side said that it did not take it."),
    Outcome.UNKNOWN.value: ("warn", "Nobody knows whether it arrived. Look there before you send it again."),
    ABANDONED: ("plain", "It did not leave after all."),
}
"""Each outcome's tone, and what it means."""

_STYLES: Final = {
    ReportStyle.TEXT: ("txt", "text/plain; charset=utf-8"),
    ReportStyle.MARKDOWN: ("md", "text/markdown; charset=utf-8"),
    ReportStyle.JSON: ("json", "application/json"),
}


def outcome_of(entry: Entry) -> str:
    """What came of it; of what was begun and never finished nobody knows."""
    return Outcome.UNKNOWN.value if entry.is_interrupted else entry.outcome


def _about(entry: Entry) -> Cell:
    return Link(Said(entry.domain), path_of(entry.domain)) if entry.domain else "several"


TABLE: Table[Entry] = Table(
    name="sent",
    title="Sent",
    order="-begun",
    empty="Nothing was sent, or nothing that matches.",
    filters=(
        Filter("q", "About instance"),
        Filter("channel", "By", tuple((each.value, each.value) for each in Channel)),
        Filter("outcome", "Outcome", tuple((each, each) for each in OUTCOMES)),
    ),
    columns=(
        Column("begun", "When", lambda entry: Moment(entry.begun_at), sortable=True, starts="down"),
        Column("outcome", "Outcome", lambda entry: Mark(outcome_of(entry), OUTCOMES[outcome_of(entry)][0])),
        Column("channel", "By", lambda entry: Link(entry.channel.value, f"/sent/{entry.digest}", opens=True)),
        Column("about", "About", _about),
        Column("to", "To", lambda entry: Said(entry.to)),
        Column("confirmed_by", "Confirmed by", lambda entry: entry.confirmed_by, sortable=True),
        Column("status", "Status", lambda entry: "" if entry.status is None else entry.status),
        Column("answer", "Answer", lambda entry: Said(entry.answer, cut=100) if entry.answer else ""),
    ),
)


class Wanted(BaseModel):
    """What a form of ours asks to be sent. `at` (ms) and `nonce` are those of the plan that was shown, `assessed` the
    assessment that it was made from; 0 and '' while nothing was shown."""

    way: Annotated[str, Field(max_length=20)] = ""
    to: Annotated[str, Field(max_length=1_000)] = ""
    opinion: Annotated[str, Field(max_length=20)] = Opinion.HESITATION.value
    incident: Annotated[str, Field(max_length=100)] = ""
    tenant: Annotated[str, Field(max_length=200)] = ""
    nonce: Annotated[str, Field(max_length=64)] = ""
    at: int = 0
    assessed: int = 0
    digest: Annotated[str, Field(max_length=64)] = ""

    def wish(self, reporter: str, at_ms: int) -> Wish:
        """As the drafts take it. Raises `NotSent`: the form is none of ours."""
        try:
            way, opinion = Way(self.way), Opinion(self.opinion)
        except ValueError:
            raise NotSent("choose what to send, and where") from None
        moment = datetime.fromtimestamp(at_ms / 1000, UTC)
        return Wish(way, reporter, moment, self.to.strip(), opinion, self.incident)


_WANTED = Form()


class Outgoing:
    """Shows plans and sends them, for the pages of one process."""

    def __init__(self) -> None:
        self._shown = Shown()

    def plan(self, here: Visit, domain: str, wanted: Wanted, base: str) -> Response:
        """The page with the plan, and the button that confirms it. `domain` '': all that are decided."""
        assessed = here.site.assessor.newest()
        try:
            wish = wanted.wish(here.user.name, here.now_ms)
            cases, left_out = self._cases(here, assessed, domain, wanted.tenant)
            plan = run_within(_drafts(here).draft(wish, cases))
        except (NotSent, NotExpressible, NothingToReport) as error:
            return not_sent(here, domain, str(error), base)
        except TimeoutError:
            return not_sent(here, domain, "the other side did not answer in time", base)
        with here.site.database.reading() as connection:
            before = [each for each in entries_about(connection, domain) if each.to == plan.to]
        return here.page(
            "plan.html",
            "Look at it, then confirm",
            plan=plan,
            shown=in_sight(plan.as_text()),
            mail=_mail_in_sight(plan),
            wanted=wanted,
            at=here.now_ms,
            assessed=self._shown.keep(assessed, {domain} if domain else _domains(cases, left_out)),
            domain=domain,
            base=base,
            left_out=left_out,
            before=[(each, outcome_of(each)) for each in before if outcome_of(each) != ABANDONED],
        )

    def confirm(self, here: Visit, domain: str, wanted: Wanted, base: str) -> Response:
        """Send what was confirmed, if it is what would be sent now; once."""
        with here.site.database.reading() as connection:
            if entry_of(connection, wanted.digest) is not None:
                return here.goto(f"/sent/{wanted.digest}", "once")
        journal = StoreJournal(here.site.database, here.actor, domain, then=_follow(here, domain))
        try:
            if not 0 <= here.now_ms - wanted.at <= _GOOD_FOR_MS:
                raise Changed("it was shown too long ago: look at it again")
            wish = wanted.wish(here.user.name, wanted.at)
            cases, _ = self._cases(here, self._shown.find(wanted.assessed, here.site.assessor), domain, wanted.tenant)
            now = datetime.fromtimestamp(here.now_ms / 1000, UTC)
            confirmation = Confirmation(here.user.name, now, wanted.digest)
            sent = run_within(_drafts(here).send(wish, cases, confirmation, wanted.nonce, journal))
        except NotConfirmed:
            return here.goto(f"/sent/{wanted.digest}", "once")
        except (NotSent, NotExpressible, NothingToReport) as error:
            return not_sent(here, domain, str(error), base)
        except TimeoutError:
            with here.site.database.reading() as connection:
                if entry_of(connection, wanted.digest) is None:
                    return not_sent(here, domain, "the other side did not answer in time", base)
            return here.goto(f"/sent/{wanted.digest}")
        return here.goto(f"/sent/{sent.digest}", "sent" if sent.outcome is Outcome.ACCEPTED else "")

    def _cases(self, here: Visit, assessed: Assessed, domain: str, tenant: str) -> tuple[list[Judged], list[LeftOut]]:
        """The case of `domain`; for '' all that Lemmy can block, and what it cannot. Raises `NotSent`: none at all."""
        caseload = caseload_of(here.site)
        with here.site.database.reading() as connection:
            if domain:
                return [caseload.judged(connection, assessed, domain, here.now_ms, tenant=tenant)], []
            cases, left_out = [], []
            for each in caseload.decided(connection, assessed, here.now_ms):
                try:
                    blocked_domain(each)
                except NotExpressible as error:
                    left_out.append(LeftOut(each.case.domain, str(error)))
                else:
                    cases.append(each)
        if not cases:
            raise NotSent("no decision in force is to defederate, and Lemmy can say nothing else")
        return cases, left_out


def _domains(cases: Sequence[Judged], left_out: Sequence[LeftOut]) -> set[str]:
    return {each.case.domain for each in cases} | {each.domain for each in left_out}


def not_sent(here: Visit, domain: str, why: str, base: str) -> Response:
    """The page that says that nothing was sent, and why."""
    return here.page("not_sent.html", "Nothing was sent", status=409, why=why, domain=domain, base=base)


def in_sight(text: str) -> str:
    """`text` in its lines, with what cannot be seen in them written out."""
    return "\n".join(plain_text(line) for line in text.replace("\r\n", "\n").split("\n"))


def outgoing_area() -> Area:
    """Reports and sendings: everybody reads them, admins send."""
    router = APIRouter()
    outgoing = Outgoing()

    @router.get("/decisions/{domain}/report", response_model=None)
    def report(here: Here, domain: str) -> Response:
        name = known_domain(domain)
        judged, tenant, tenants = _judged(here, name)
        try:
            text, fault = in_sight(as_text(make_report(judged.case, answer_to=_answer_to(here)))), ""
        except NothingToReport as error:
            text, fault = "", str(error)
        people = people_of(here, name)
        return here.page(
            "report.html",
            f"Report to the admins of {name}",
            domain=name,
            text=text,
            fault=fault,
            case=judged.case,
            unconfirmed=judged.case.left_out,
            tenant=tenant,
            tenants=tenants,
            domains=defaultdict(str, here.site.surroundings.tenant_domains),
            people=people,
            mails=[each for each in people["addresses"] if each.kind is ContactKind.MAIL],
            can_mail=Way.MAIL in people["ways"],
        )

    @router.get("/decisions/{domain}/report/{style}", response_model=None)
    def report_file(here: Here, domain: str, style: str) -> Response:
        name = known_domain(domain)
        try:
            wanted = ReportStyle(style)
        except ValueError:
            raise HTTPException(404) from None
        try:
            content = style_report(_judged(here, name)[0].case, wanted, answer_to=_answer_to(here))
        except NothingToReport as error:
            return not_sent(here, name, str(error), path_of(name))
        suffix, media = _STYLES[wanted]
        plain = "".join(each if each.isalnum() or each in ".-" else "_" for each in name)
        return as_file(content, media, f"report-{plain}.{suffix}")

    @router.get("/decisions/{domain}/send", response_model=None)
    def send(here: Here, domain: str) -> Response:
        must_be(here, Role.ADMIN)
        name = known_domain(domain)
        judged, tenant, _ = _judged(here, name)
        audit = here.site.surroundings.audit
        return here.page(
            "send.html",
            f"Send what was decided on {name}",
            domain=name,
            judged=judged,
            tenant=tenant,
            word=ACTIONS[judged.action][0],
            base=path_of(name),
            ready={each.value for each in ready_ways(audit.mail, audit.targets)},
            targets=audit.targets,
            incidents=[(incident_id(judged.case, each), each) for each in judged.case.confirmed],
        )

    @router.post("/decisions/{domain}/plan", response_model=None)
    def plan(here: Here, domain: str, wanted: Annotated[Wanted, _WANTED]) -> Response:
        must_be(here, Role.ADMIN)
        name = known_domain(domain)
        return outgoing.plan(here, name, wanted, path_of(name))

    @router.post("/decisions/{domain}/confirm", response_model=None)
    def confirm(here: Here, domain: str, wanted: Annotated[Wanted, _WANTED]) -> Response:
        must_be(here, Role.ADMIN)
        name = known_domain(domain)
        return outgoing.confirm(here, name, wanted, path_of(name))

    @router.post("/exports/lemmy/plan", response_model=None)
    def plan_all(here: Here) -> Response:
        must_be(here, Role.ADMIN)
        return outgoing.plan(here, "", Wanted(way=Way.LEMMY.value), "/exports/lemmy")

    @router.post("/exports/lemmy/confirm", response_model=None)
    def confirm_all(here: Here, wanted: Annotated[Wanted, _WANTED]) -> Response:
        must_be(here, Role.ADMIN)
        return outgoing.confirm(here, "", wanted, "/exports/lemmy")

    @router.get("/sent", response_model=None)
    def sent(here: Here) -> Response:
        selection = here.select(TABLE)
        with here.site.database.reading() as connection:
            found = _find(connection, selection)
        return here.show("sent.html", TABLE, selection, found, outcomes=OUTCOMES)

    @router.get("/sent/{digest}", response_model=None)
    def sent_one(here: Here, digest: str) -> Response:
        with here.site.database.reading() as connection:
            entry = entry_of(connection, digest)
        if entry is None:
            raise HTTPException(404)
        outcome = outcome_of(entry)
        plan = Plan(entry.channel, entry.to, entry.request, entry.payload, entry.changes, "")
        return here.page(
            "sent_one.html",
            f"Sent by {entry.channel.value}",
            entry=entry,
            outcome=outcome,
            tone=OUTCOMES[outcome][0],
            meaning=OUTCOMES[outcome][1],
            shown=in_sight(plan.as_text()),
            mail=_mail_in_sight(plan),
            about=path_of(entry.domain) if entry.domain else "",
        )

    return Area("Sent", "/sent", Role.VIEWER, router)


def as_file(content: bytes, media: str, name: str) -> Response:
    """A download. `name` is ours: ASCII without quotes."""
    return Response(content, media_type=media, headers={"content-disposition": f'attachment; filename="{name}"'})


def _judged(here: Visit, domain: str) -> tuple[Judged, str, list[str]]:
    """The case with its confirmed incidents, for the tenant that ``?tenant=`` names or the most concerned one, and all
    tenants that there are."""
    assessed = here.site.assessor.newest()
    with here.site.database.reading() as connection:
        tenants = read_tenants(connection, assessed, domain)
        asked = here.request.query_params.get("tenant", "")
        tenant = asked if asked in tenants else next(iter(tenants), "default")
        judged = caseload_of(here.site).judged(
            connection, assessed, domain, here.now_ms, tenant=tenant, tenants=tenants, confirmed_only=True
        )
    return judged, tenant, tenants


def _answer_to(here: Visit) -> str:
    return here.site.surroundings.audit.mail.answer_to


def _drafts(here: Visit) -> Drafts:
    audit = here.site.surroundings.audit
    return Drafts(audit.mail, audit.targets)


def _follow(here: Visit, domain: str) -> Callable[[Connection, Sent, int], None]:
    """What follows from a sending, in the transaction of its last entry: a mail that was taken is a letter."""

    def then(connection: Connection, sent: Sent, at: int) -> None:
        if sent.channel is Channel.MAIL and sent.outcome is Outcome.ACCEPTED:
            day = datetime.fromtimestamp(at / 1000, UTC).date()
            write_down_letter(connection, here.actor, domain, f"mail to {sent.to}", sent=day, at=at)

    return then


def _mail_in_sight(plan: Plan) -> dict[str, str]:
    """A mail as people read it; empty for what is none."""
    if plan.channel is not Channel.MAIL:
        return {}
    return {name: in_sight(str(value)) for name, value in plan.payload.items()}


def _find(connection: Connection, selection: Selection) -> Rows[Entry]:
    def matching(statement: Select[Any]) -> Select[Any]:
        if term := selection.term("q"):
            statement = statement.where(JOURNAL.c.domain.icontains(term, autoescape=True))
        if term := selection.term("channel"):
            statement = statement.where(JOURNAL.c.channel == term)
        if term := selection.term("outcome"):
            statement = statement.where(JOURNAL.c.outcome == term)  # begun and never finished is unknown there, too
        return statement

    total = connection.execute(matching(select(func.count()).select_from(JOURNAL))).scalar_one()
    columns = {"begun": JOURNAL.c.begun_at, "confirmed_by": JOURNAL.c.confirmed_by}
    rows = connection.execute(ordered(matching(select(JOURNAL)), selection, columns, last=JOURNAL.c.digest))
    return Rows([as_entry(row) for row in rows], total)
