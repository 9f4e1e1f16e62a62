"""A page of the tests' own: every building block of the pages, with invented rows that want to break them."""

from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter
from jinja2 import ChoiceLoader, FileSystemLoader
from starlette.responses import Response

from federation_audit.accounts.roles import Role
from federation_audit.pages.cells import Interval, Link, Listed, Mark, Moment, Said, Share, Tone
from federation_audit.pages.rendering import environment
from federation_audit.pages.site import Area
from federation_audit.pages.table import Column, Filter, Table, take
from federation_audit.pages.visits import Here

_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Sample:
    """An invented instance."""

    domain: str
    said: str
    images: int
    rate: float
    low: float
    high: float
    level: str
    tone: Tone
    hours: int
    rules: tuple[str, ...]


SAMPLES = (
    Sample("calm.example", "A quiet place for gardeners", 184_212, 0.0009, 0.0007, 0.0011, "none", "good", 2, ()),
    Sample("meadow.example", "Meadow & more <b>bold?</b>", 52_310, 0.011, 0.0101, 0.0119, "watch", "watch", 30, ("a",)),
    Sample(
        "xn--bcher-kva.example",
        "Bücher \u202eelpmaxe.reh\u202c turned round",
        3_120,
        0.034,
        0.028,
        0.041,
        "restrict",
        "warn",
        5,
        ("explicit", "violence"),
    ),
    Sample(
        "storm.example", "long " * 2_000, 640, 0.128, 0.104, 0.155, "recommend", "bad", 0, ("explicit", "known hash")
    ),
    Sample("new.example", '=HYPERLINK("https://evil.example")', 12, 0.0, 0.0, 0.26, "too few", "plain", 900, ()),
    Sample(
        "zalgo.example",
        "Za" + "\u0301\u0316\u0330" * 12 + "lgo\u200b\u2800",
        800,
        0.002,
        0.0007,
        0.005,
        "none",
        "good",
        77,
        (),
    ),
)

TABLE: Table[Sample] = Table(
    name="samples",
    title="Building blocks",
    order="-rate",
    empty="No row matches. Clear the search to see all.",
    filters=(
        Filter("q", "Domain contains", hint="such as calm"),
        Filter("level", "Level", tuple((each, each) for each in ("none", "watch", "restrict", "recommend", "too few"))),
    ),
    columns=(
        Column(
            "domain",
            "Instance",
            lambda row: Link(Said(row.domain), f"/style?q={row.domain}", opens=True),
            sortable=True,
        ),
        Column("said", "Says of itself", lambda row: Said(row.said, cut=40)),
        Column("images", "Images", lambda row: row.images, sortable=True, starts="down", numeric=True),
        Column("share", "Flagged", lambda row: Share(row.rate), numeric=True),
        Column(
            "rate",
            "Rate, 90 % interval",
            lambda row: Interval(row.rate, row.low, row.high, per_cent=True),
            sortable=True,
            starts="down",
            numeric=True,
        ),
        Column("level", "Level", lambda row: Mark(row.level, row.tone), sortable=True),
        Column("rules", "Rules", lambda row: Listed(row.rules) if row.rules else "none"),
        Column("seen", "Last image", lambda row: Moment(1_764_000_000_000 - row.hours * _HOUR_MS), sortable=True),
    ),
)


def style_area() -> Area:
    """The building blocks, for everybody who is logged in; not in the navigation."""
    own = FileSystemLoader(Path(__file__).parent)
    loader = environment().loader
    assert loader is not None
    environment().loader = ChoiceLoader([loader, own])
    router = APIRouter()

    @router.get("/style", response_model=None)
    def show(here: Here) -> Response:
        selection = here.select(TABLE)
        query, level = selection.term("q").lower(), selection.term("level")
        found = take(SAMPLES, TABLE, selection, lambda row: query in row.domain and level in ("", row.level))
        return here.show("style.html", TABLE, selection, found)

    return Area("", "/style", Role.VIEWER, router)
