"""Rescans: each as it stands, how far the one at work is, and what it would decide differently. No pixels, no buttons:
a rescan is carried out by a command, which shows the numbers and asks."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.responses import Response

from federation_audit.accounts.roles import Role
from federation_audit.pages import figures
from federation_audit.pages.cells import Cell, Link, Listed, Mark, Moment, Said, Share, Tone
from federation_audit.pages.funnel import instance_path
from federation_audit.pages.overview import say_recorder
from federation_audit.pages.site import Area
from federation_audit.pages.table import PAGE_ROWS, Column, Filter, Links, Rows, Selection, Table, take
from federation_audit.pages.visits import Here, Visit
from federation_audit.rescans.held import WORDS
from federation_audit.rescans.watching import LOOK_EVERY_S, Seen
from federation_audit.store import rescans
from federation_audit.store.facts import RESCANS_DAYS
from federation_audit.store.queries import read_author_instances
from federation_audit.store.state import read_state
from schemas.messages import Decision, RescanOrdered, RescanState, RescanTier
from schemas.topics import DAY_MS

PATH: Final = "/rescans"
_STILL: Final = "off"
_SHOWN_MOST: Final = 10

STATES: Final[dict[RescanState, tuple[Tone, str]]] = {
    RescanState.RUNNING: ("watch", "it judges; nothing is changed by that"),
    RescanState.FINISHED: ("plain", "all is judged; nothing is carried out yet"),
    RescanState.CANCELLED: ("plain", "it was stopped before its end"),
    RescanState.APPLYING: ("warn", "it is being carried out"),
    RescanState.APPLIED: ("good", "images stand as it judged them"),
    RescanState.UNDOING: ("warn", "it is being taken back"),
    RescanState.UNDONE: ("plain", "it was carried out, and taken back"),
}
"""Each state's tone, and what it means."""

_CHANGING: Final = (RescanState.RUNNING, RescanState.APPLYING, RescanState.UNDOING)
_DECISIONS: Final[dict[Decision, Tone]] = {Decision.ACCEPT: "good", Decision.REVIEW: "watch", Decision.REJECT: "bad"}
_CHANGES: Final = {f"{a.value}-{b.value}": (a, b) for a in Decision for b in Decision if a is not b}


@dataclass(frozen=True, slots=True)
class Line:
    """A rescan in the list of all, with what is seen of it while it is at work."""

    job: RescanOrdered
    seen: Seen | None


def path_of(rescan: str) -> str:
    """The page of a rescan."""
    return f"{PATH}/{rescan}"


def state_mark(state: RescanState) -> Mark:
    """The state as a mark."""
    return Mark(state.value, STATES[state][0])


def _done(line: Line) -> Cell:
    if line.job.state is not RescanState.RUNNING:
        return ""
    progress = line.seen.progress if line.seen else None
    return Share(progress.done / progress.total) if progress and progress.total else None


TABLE: Table[Line] = Table(
    name="rescans",
    title="Rescans",
    order="-ordered",
    empty="No rescan matches, or there was none yet. `fediwarden rescan --help` tells how to order one.",
    filters=(
        Filter("state", "State", tuple((each.value, each.value) for each in RescanState)),
        Filter("tier", "Judged from", tuple((each.value, each.value) for each in RescanTier)),
    ),
    columns=(
        Column("rescan", "Rescan", lambda line: Link(line.job.rescan, path_of(line.job.rescan), opens=True)),
        Column("state", "State", lambda line: state_mark(line.job.state), sortable=True),
        Column("done", "Done", _done, numeric=True),
        Column("tier", "Judged from", lambda line: line.job.tier.value, sortable=True),
        Column("ordered", "Ordered", lambda line: Moment(line.job.ordered_at), sortable=True, starts="down"),
        Column(
            "by", "Ordered by", lambda line: Said(line.job.ordered_by) if line.job.ordered_by else "", sortable=True
        ),
        Column("span", "Images from, until", lambda line: Listed([Moment(line.job.since), Moment(line.job.until)])),
        Column("tenants", "Tenants", lambda line: Listed(line.job.tenants) if line.job.tenants else "all"),
        Column("why", "Why", lambda line: Said(line.job.why, cut=100) if line.job.why else ""),
    ),
)


@dataclass(frozen=True, slots=True)
class FlipRow:
    """An image that is decided differently, and the instances that surely posted it."""

    flip: rescans.Flip
    instances: tuple[str, ...]


def _domains(instances: Sequence[str]) -> Cell:
    return Listed([Link(Said(each), instance_path(each)) for each in instances], most=3) if instances else None


FLIPS: Table[FlipRow] = Table(
    name="flips",
    title="Images decided differently",
    order="-judged",
    empty="No image is decided differently, or none matches.",
    filters=(Filter("change", "Change", tuple((key, key.replace("-", " → ")) for key in _CHANGES)),),
    columns=(
        Column("judged", "Judged again", lambda row: Moment(row.flip.judged_at), sortable=True, starts="down"),
        Column("before", "Before", lambda row: Mark(row.flip.before.value, _DECISIONS[row.flip.before])),
        Column("after", "Now", lambda row: Mark(row.flip.after.value, _DECISIONS[row.flip.after])),
        Column(
            "rules",
            "Rules now",
            lambda row: (
                Listed([Said(each) for each in row.flip.rules], most=3)
                if row.flip.rules
                else Said(row.flip.hash_list)
                if row.flip.hash_list
                else "none"
            ),
        ),
        Column("instance", "Author’s instance", lambda row: _domains(row.instances)),
        Column("tenant", "Tenant", lambda row: row.flip.tenant),
        Column("scan", "Scan", lambda row: Said(row.flip.scan_id)),
        Column("sha256", "SHA-256", lambda row: Said(row.flip.sha256.hex(), cut=12)),
    ),
)


@dataclass(frozen=True, slots=True)
class Stood:
    """What becomes of the images that stood so; `before` is None for those of which nobody knows."""

    before: Decision | None
    now: Mapping[Decision, int]


def _now(decision: Decision) -> Column[Stood]:
    return Column(decision.value, f"Now {decision.value}", lambda row: row.now[decision], numeric=True)


@dataclass(frozen=True, slots=True)
class Named:
    """A name with its counts."""

    name: str
    images: int
    flips: int = 0
    changes: tuple[tuple[tuple[Decision, Decision], int], ...] = ()


DECISIONS: Table[Stood] = Table(
    name="decisions",
    title="Decisions",
    order="",
    empty="No image was decided yet.",
    columns=(
        Column("before", "Before", lambda row: Mark(row.before.value, _DECISIONS[row.before]) if row.before else None),
        *(_now(decision) for decision in Decision),
    ),
)
HELD_TABLE: Table[Named] = Table(
    name="held",
    title="Kept as they are",
    order="",
    empty="No image is kept from being decided.",
    columns=(
        Column("why", "Because", lambda row: row.name),
        Column("images", "Images", lambda row: row.images, numeric=True),
    ),
)
RULES: Table[Named] = Table(
    name="rules",
    title="Rules",
    order="",
    empty="No rule fires.",
    columns=(
        Column("rule", "Rule", lambda row: Said(row.name)),
        Column("images", "Fires now", lambda row: row.images, numeric=True),
        Column("flips", "Decided differently", lambda row: row.flips, numeric=True),
    ),
)
INSTANCES: Table[Named] = Table(
    name="instances",
    title="Author’s instances",
    order="",
    empty="No image is decided differently.",
    columns=(
        Column(
            "instance",
            "Instance",
            lambda row: Link(Said(row.name), instance_path(row.name)) if row.name else None,
        ),
        Column("images", "Decided differently", lambda row: row.images, numeric=True),
        Column(
            "changes",
            "How",
            lambda row: Listed([f"{n:,} {a.value} → {b.value}" for (a, b), n in row.changes]),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Shown:
    """The first rows of a part, on the page of the rescan; `links` lead to the part's own page."""

    name: str
    meaning: str
    table: Table[Any]
    rows: Rows[Any]
    links: Links


Part = tuple[Table[Any], Callable[[Connection, RescanOrdered, rescans.Said], Sequence[Any]], str]


def _decisions(_connection: Connection, _job: RescanOrdered, said: rescans.Said) -> list[Stood]:
    rows: list[Stood] = []
    for before in (*Decision, None):
        now = {after: said.decisions[before, after] for after in Decision}
        if before is not None or any(now.values()):
            rows.append(Stood(before, now))
    return rows if said.decisions else []


def _held(_connection: Connection, _job: RescanOrdered, said: rescans.Said) -> list[Named]:
    rows = [Named(WORDS.get(why, why), images) for why, images in sorted(said.held.items())]
    return rows + [Named("they stand otherwise than those that it is about", said.other)] * bool(said.other)


def _rules(_connection: Connection, _job: RescanOrdered, said: rescans.Said) -> list[Named]:
    return [Named(name, each.fires, each.flips) for name, each in said.rules.items()]


def _instances(connection: Connection, job: RescanOrdered, _said: rescans.Said) -> list[Named]:
    def named(domain: str, changes: Counter[tuple[Decision, Decision]]) -> Named:
        return Named(domain, changes.total(), changes=tuple(sorted(changes.items())))

    rows = [named(*each) for each in rescans.read_instance_flips(connection, job).items()]
    return sorted(rows, key=lambda row: (not row.name, -row.images, row.name))


PARTS: Final[dict[str, Part]] = {
    "decisions": (DECISIONS, _decisions, "Images by what was decided before and what would be decided now."),
    "held": (HELD_TABLE, _held, "These keep their decision, whatever the rescan says."),
    "rules": (RULES, _rules, "In how many images each rule fires now, and how many of those are decided differently."),
    "instances": (
        INSTANCES,
        _instances,
        "By the instance whose users posted the image. This says what changes, and nothing about blame.",
    ),
}
"""The tables of a rescan's page, each with a page of its own: what it holds, its rows, and what it says."""


def rescans_area() -> Area:
    """Rescans, for everybody."""
    router = APIRouter()

    @router.get(PATH, response_model=None)
    def show(here: Here) -> Response:
        selection = here.select(TABLE)
        with here.site.database.reading() as connection:
            jobs = rescans.read_rescans(connection)
            recorder = say_recorder(read_state(connection), here.now_ms)
        lines = [Line(job, _seen(here, job.rescan)) for job in jobs]
        state, tier = selection.term("state"), selection.term("tier")

        def matches(line: Line) -> bool:
            return state in ("", line.job.state.value) and tier in ("", line.job.tier.value)

        found = take(lines, TABLE, selection, matches)
        return here.show("rescans.html", TABLE, selection, found, recorder=recorder)

    @router.get(f"{PATH}/{{rescan}}", response_model=None)
    def show_one(here: Here, rescan: str) -> Response:
        selection = here.select(FLIPS)
        with here.site.database.reading() as connection:
            job = _find(connection, rescan)
            flips = _find_flips(connection, job, selection)
            if here.format != "html":
                return here.show("", _named(FLIPS, job), selection, flips)
            said = rescans.read_said(connection, job)
            parts = [_part(connection, job, said, name) for name in PARTS]
            recorder = say_recorder(read_state(connection), here.now_ms)
        seen = _seen(here, rescan)
        changing = job.state in _CHANGING
        fresh = here.request.query_params.get("refresh") != _STILL and selection.page == 1 and not selection.terms
        answer = here.show(
            "rescan.html",
            _named(FLIPS, job),
            selection,
            flips,
            job=job,
            mark=state_mark(job.state),
            meaning=STATES[job.state][1],
            counts=said,
            verb="are" if job.state is RescanState.APPLIED else "would be",
            parts=parts,
            recorder=recorder,
            watched=here.site.rescans is not None,
            seen=seen,
            progress=seen.progress if seen else None,
            pace=_say_pace(seen),
            working=_say_working(seen, here.now_ms),
            changing=changing,
            fresh=fresh,
            every_s=round(LOOK_EVERY_S),
            is_gone=job.ordered_at < here.now_ms - RESCANS_DAYS * DAY_MS,
            commands=_commands(job),
            path=path_of(job.rescan),
        )
        if changing and fresh:
            answer.headers["refresh"] = f"{LOOK_EVERY_S:.0f}"
        return answer

    @router.get(f"{PATH}/{{rescan}}/{{name}}", response_model=None)
    def show_part(here: Here, rescan: str, name: str) -> Response:
        if name not in PARTS:
            raise HTTPException(404)
        table, rows_of, meaning = PARTS[name]
        selection = here.select(table)
        with here.site.database.reading() as connection:
            job = _find(connection, rescan)
            rows = rows_of(connection, job, rescans.read_said(connection, job))
        shown = Rows(rows[selection.start : selection.start + selection.size], len(rows))
        return here.show("rescan_rows.html", _named(table, job), selection, shown, job=job, meaning=meaning)

    return Area("Rescans", PATH, Role.VIEWER, router)


def _find(connection: Connection, rescan: str) -> RescanOrdered:
    job = rescans.read_rescan(connection, rescan)
    if job is None:
        raise HTTPException(404)
    return job


def _seen(here: Visit, rescan: str) -> Seen | None:
    return here.site.rescans.seen_of(rescan) if here.site.rescans is not None else None


def _find_flips(connection: Connection, job: RescanOrdered, selection: Selection) -> Rows[FlipRow]:
    change = _CHANGES.get(selection.term("change"))
    wanted = rescans.Wanted(change, selection.start, selection.size, newest_first=selection.down)
    flips, total = rescans.read_flips(connection, job, wanted)
    instances = read_author_instances(connection, {(each.tenant, each.sha256) for each in flips})
    rows = [FlipRow(each, tuple(sorted(instances.get((each.tenant, each.sha256), ())))) for each in flips]
    return Rows(rows, total)


def _part(connection: Connection, job: RescanOrdered, said: rescans.Said, name: str) -> Shown:
    """The first rows of a part, for the page of the rescan; its links lead to its own page."""
    table, rows_of, meaning = PARTS[name]
    rows = rows_of(connection, job, said)
    shown = rows[:_SHOWN_MOST]
    if len(rows) > len(shown):
        meaning = f"{meaning} Here are the first {len(shown)} of {len(rows):,}."
    selection = Selection(table.order, down=False, page=1, size=PAGE_ROWS, terms={})
    return Shown(
        name, meaning, table, Rows(shown, len(shown)), Links(f"{path_of(job.rescan)}/{name}", table, selection)
    )


def _named(table: Table[Any], job: RescanOrdered) -> Table[Any]:
    return replace(table, name=f"{job.rescan}-{table.name}")


def _say_pace(seen: Seen | None) -> str:
    progress = seen.progress if seen else None
    if progress is None or progress.left == 0:
        return ""
    if progress.rate is None:
        return "The rate is not known yet."
    if progress.left_s is None:
        return "Nothing moved in the last half minute, so that nobody can say how long the rest takes."
    rate = figures.count(round(progress.rate)) if progress.rate >= 10 else figures.decimal(progress.rate, 2)
    return f"{rate} records a second: {figures.span(progress.left_s)} left."


def _say_working(seen: Seen | None, now_ms: int) -> tuple[Tone, str]:
    """Whether anybody is at it, with a tone."""
    worked_on = seen.is_worked_on(now_ms) if seen else None
    if seen is None or worked_on is None:
        if seen is not None and seen.fault:
            return "warn", f"Kafka does not tell how far it is: {seen.fault}"
        return (
            "plain",
            "Whether anybody works on it is not known yet: these pages look for a minute before they say so.",
        )
    if worked_on:
        return "good", f"It is worked on: it moved {figures.relative(seen.moved_at or now_ms, now_ms)}."
    if seen.job.tier is RescanTier.FRAMES:
        return "warn", (
            "Nothing moved for a minute: no scanner with its models runs, or all of them are busy with live images."
        )
    return "warn", (
        "Nobody works on it: nothing moved for a minute."
        f" `fediwarden rescan resume {seen.job.rescan}` goes on where it was."
    )


def _commands(job: RescanOrdered) -> list[tuple[str, str]]:
    """What can be done about it now, each with what it does."""
    report = (
        "report",
        "everything about it, beside how the images stand by now; --html FILE writes a page, with scores",
    )
    resume = ("resume", "goes on where it was; run twice, the work is shared")
    apply = ("apply", "shows the numbers, asks, and makes the images stand as it judged them")
    undo = ("undo", "gives the images the decision back that they had; pictures that were removed do not come back")
    found = {
        RescanState.RUNNING: [resume, ("cancel", "ends it; nothing is changed by it then")],
        RescanState.FINISHED: [report, apply],
        RescanState.CANCELLED: [report, resume],
        RescanState.APPLYING: [("apply", "goes on with it, where it was interrupted"), undo],
        RescanState.APPLIED: [report, undo],
        RescanState.UNDOING: [("undo", "goes on with it, where it was interrupted")],
        RescanState.UNDONE: [report, ("apply", "carries it out once more, after showing the numbers")],
    }[job.state]
    return [(f"fediwarden rescan {word} {job.rescan}", does) for word, does in found]
