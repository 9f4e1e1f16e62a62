"""What reviews have settled, for everybody."""

from fastapi import APIRouter
from starlette.responses import Response

from federation_audit.accounts.database import Database
from federation_audit.accounts.roles import Role
from federation_audit.assessing.assessor import Assessed
from federation_audit.pages.cells import Cell, Link, Listed, Mark, Moment, Said
from federation_audit.pages.review_rows import path_of
from federation_audit.pages.review_words import SAID_SO, TONES, domains
from federation_audit.pages.site import Area
from federation_audit.pages.table import Column, Filter, Table, take
from federation_audit.pages.visits import Here
from federation_audit.reviewing.settled import Settled, read_settled

SETTLED_PATH = "/reviewed"


def _settled_table(links: bool) -> Table[Settled]:
    """The table of what is settled; with links to images for those who may open them."""

    def image(each: Settled) -> Cell:
        short = each.name.hex()[:12]
        return Link(short, path_of(each.tenant, each.name), opens=True) if links else short

    return Table(
        name="reviewed",
        title="Reviewed",
        order="-at",
        empty="Nothing is settled yet, or nothing matches.",
        filters=(
            Filter("q", "Author’s instance contains"),
            Filter("who", "Reviewer", hint="a user's name"),
            Filter("outcome", "Outcome", (("confirmed", "confirmed"), ("dismissed", "dismissed"))),
            Filter("tenant", "Tenant", hint="its name"),
        ),
        columns=(
            Column("at", "Settled", lambda each: Moment(each.at), sortable=True, starts="down"),
            Column("image", "Image", image),
            Column("outcome", "Outcome", lambda each: Mark(each.outcome.value, TONES[each.outcome]), sortable=True),
            Column("images", "Images", lambda each: each.images, sortable=True, starts="down", numeric=True),
            Column("authors", "Author’s instance", lambda each: domains(each.authors)),
            Column(
                "by",
                "By",
                lambda each: Listed([f"{one.reviewer}: {SAID_SO[one.opinion]}" for one in each.reviews]),
            ),
            Column(
                "notes",
                "Notes",
                lambda each: (
                    Listed([Said(f"{one.reviewer}: {one.note}") for one in each.reviews if one.note])
                    if any(one.note for one in each.reviews)
                    else ""
                ),
            ),
            Column("tenant", "Tenant", lambda each: each.tenant, sortable=True),
        ),
    )


def reviewed_area() -> Area:
    """What is settled, for everybody: it says who said what, which no longer sways anybody."""
    router = APIRouter()

    @router.get(SETTLED_PATH, response_model=None)
    def show(here: Here) -> Response:
        table = _settled_table(here.user.role.includes(Role.REVIEWER))
        selection = here.select(table)
        with here.site.database.reading() as connection:
            settled = read_settled(connection)
        author, who = selection.term("q").lower(), selection.term("who").lower()
        outcome, tenant = selection.term("outcome"), selection.term("tenant")

        def matches(each: Settled) -> bool:
            return (
                (not author or any(author in domain for domain in each.authors))
                and (not who or any(who == one.reviewer for one in each.reviews))
                and outcome in ("", each.outcome.value)
                and tenant in ("", each.tenant)
            )

        return here.show("reviewed.html", table, selection, take(settled, table, selection, matches))

    return Area("Reviewed", SETTLED_PATH, Role.VIEWER, router, _prepare)


def _prepare(_: Assessed, database: Database) -> None:
    with database.reading() as connection:
        read_settled(connection)
