"""The review queue, for reviewers: rows without pixels, answers, and what was settled.

Nobody is told what others said of an image before they have answered themselves, neither by words nor by the order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form
from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.responses import Response

from federation_audit.accounts.actions import record
from federation_audit.accounts.roles import Role
from federation_audit.pages.cells import Cell, Link, Listed, Mark, Moment, Said, Tone
from federation_audit.pages.site import Area, Site
from federation_audit.pages.table import Column, Filter, Rows, Table, take
from federation_audit.pages.viewing import viewing_link
from federation_audit.pages.visits import Here, Visit, own_path
from federation_audit.reviewing.answering import Asked, answer_media, answer_rows
from federation_audit.reviewing.closeup import Cluster, Medium, Seen, read_cluster, waiting_of
from federation_audit.reviewing.errors import ClusterChanged, ReviewRefused
from federation_audit.reviewing.giving import last_answer, undo
from federation_audit.reviewing.outcomes import Opinion, Outcome
from federation_audit.reviewing.overriding import DISTANCE, Publisher, Wish, count_unpublished, guarded
from federation_audit.reviewing.pace import PUT_OFF, read_pace
from federation_audit.reviewing.prospects import Confirmed, foresee
from federation_audit.reviewing.queue import Details, Waiting, read_details, read_one, read_waiting
from federation_audit.reviewing.settled import Settled, read_settled
from federation_audit.store.periods import as_date
from federation_audit.store.queries import Stratum
from schemas.messages import DISTANCE_MOST, OverrideEffect
from schemas.topics import DAY_MS

PATH = "/review"
SETTLED_PATH = "/reviewed"
_FIELD = Form(max_length=1_000)
_ROW = Form(max_length=200)
_SCORES_MOST = 4
_NAMED_MOST = 3
_UNDO_MS = DAY_MS

FAULTS = {
    "none": "Nothing was changed: select at least one row first.",
    "changed": "Nothing was changed: other images belong to this row now than those that were shown. Look again.",
    "gone": "Nothing was changed: this is settled, or you have answered it already.",
    "cap": "Nothing was changed: these are more answers than you have left today. Select fewer.",
    "undo": "Nothing was changed: that is not your last answer any more.",
    "kafka": "The overrides are not in force: Kafka did not take them. Nothing is lost; try again when it is there.",
}
"""What a page says after a form was not done; the address carries the word."""

OPINIONS: Mapping[Opinion, tuple[str, str]] = {
    Opinion.CONFIRM: ("Confirm", "c"),
    Opinion.DISMISS: ("Dismiss", "d"),
    Opinion.UNSURE: ("Unsure", "u"),
}
"""What each button says, and its key."""

SAID_SO = {Opinion.CONFIRM: "confirmed", Opinion.DISMISS: "dismissed", Opinion.UNSURE: "unsure"}
_TONES: Mapping[Outcome, Tone] = {
    Outcome.CONFIRMED: "bad",
    Outcome.DISMISSED: "good",
    Outcome.DISPUTED: "watch",
    Outcome.OPEN: "plain",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A row of the queue as a page has it. `key` is what its buttons send."""

    turn: int
    row: Waiting
    details: Details
    reasons: tuple[str, ...]
    if_confirmed: tuple[str, ...]

    @property
    def key(self) -> str:
        """Names the row, and what of it was shown."""
        return f"{self.row.tenant}/{self.row.name.hex()}/{self.row.seen}"

    @property
    def path(self) -> str:
        """Its own page."""
        return path_of(self.row.tenant, self.row.name)

    @property
    def others(self) -> str:
        """How many others reviewed it, and whether they agree; never what they said."""
        return others_in_words(len(self.row.others), self.row.others_agree)

    @property
    def scores(self) -> list[tuple[str, float]]:
        """The highest, the first first."""
        return sorted(self.details.scores.items(), key=lambda each: (-each[1], each[0]))[:_SCORES_MOST]

    @property
    def posted(self) -> tuple[str, str] | None:
        """The first and the last day that it was posted on, where that is known."""
        days = self.details.days
        return (as_date(min(days)).isoformat(), as_date(max(days)).isoformat()) if days else None


QUEUE: Table[Shown] = Table(
    name="review",
    title="Review",
    order="turn",
    empty="Nothing waits for you. What others still have to look at is not shown here.",
    filters=(Filter("q", "Author’s instance contains"), Filter("tenant", "Tenant", hint="its name")),
    columns=(
        Column("turn", "Turn", lambda shown: shown.turn, numeric=True),
        Column("image", "Image", lambda shown: Link(shown.row.name.hex()[:12], shown.path, opens=True)),
        Column("sha256", "SHA-256", lambda shown: shown.row.name.hex()),
        Column("tenant", "Tenant", lambda shown: shown.row.tenant),
        Column("flagged", "Flagged", lambda shown: Moment(shown.row.oldest)),
        Column("posted", "Posted", lambda shown: shown.posted[0] if shown.posted else None),
        Column("authors", "Author’s instance", lambda shown: domains(sorted(shown.details.authors))),
        Column("communities", "Community on", lambda shown: domains(sorted(shown.details.communities))),
        Column("hosts", "Image host", lambda shown: domains(sorted(shown.details.hosts))),
        Column("why", "Why", lambda shown: Listed(shown.reasons)),
        Column("scores", "Scores", lambda shown: Listed([f"{name} {score:.2f}" for name, score in shown.scores])),
        Column("images", "Images", lambda shown: shown.details.images, numeric=True),
        Column("near", "Near-duplicates", lambda shown: shown.details.near, numeric=True),
        Column("accounts", "Accounts", lambda shown: shown.details.accounts, numeric=True),
        Column("others", "Reviewed by", lambda shown: shown.others),
        Column("if_confirmed", "If confirmed", lambda shown: Listed(shown.if_confirmed)),
    ),
)

MEDIA: Table[Medium] = Table(
    name="images",
    title="Images",
    order="sha256",
    empty="No image of it is left.",
    columns=(
        Column("sha256", "SHA-256", lambda medium: medium.sha256.hex()),
        Column("flagged", "Flagged", lambda medium: Moment(medium.flagged_at)),
        Column("now", "Now", lambda medium: medium.decision.value if medium.decision else None),
        Column("type", "Type", lambda medium: Said(medium.media_type) if medium.media_type else None),
        Column("bytes", "Bytes", lambda medium: medium.length or None, numeric=True),
        Column(
            "scores",
            "Scores",
            lambda medium: Listed([f"{name} {score:.2f}" for name, score in sorted(medium.scores.items())]),
        ),
        Column(
            "judged",
            "Judged",
            lambda medium: Listed([f"{each.decision} by {stratum_in_words(each.stratum)}" for each in medium.judged]),
        ),
        Column("seen", "Seen", lambda medium: Listed([Said(seen_in_words(each), cut=200) for each in medium.origins])),
        Column("others", "Reviewed by", lambda medium: medium.others, numeric=True),
        Column(
            "reviews",
            "Reviews",
            lambda medium: (
                None
                if medium.reviews is None
                else Listed([f"{each.reviewer}: {SAID_SO[each.opinion]}" for each in medium.reviews])
            ),
        ),
        Column("outcome", "Outcome", lambda medium: medium.outcome.value if medium.outcome else None),
    ),
)


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
            Column("outcome", "Outcome", lambda each: Mark(each.outcome.value, _TONES[each.outcome]), sortable=True),
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


def review_area() -> Area:
    """The queue, and the pages of single images. For reviewers: a viewer judges nothing, and sees what is settled."""
    router = APIRouter()
    publisher = Publisher()

    @router.get(PATH, response_model=None)
    def show(here: Here) -> Response:
        selection = here.select(QUEUE)
        query = here.request.query_params
        with here.site.database.reading() as connection:
            context = _context(here, connection)
            confirmed = confirmed_by_instance(here.site)
            part, total = read_waiting(
                connection,
                here.user.name,
                verified_lists=here.site.surroundings.audit.verified_lists,
                evidence=with_evidence(here.site),
                tenant=selection.term("tenant"),
                author=selection.term("q"),
                start=selection.start,
                size=selection.size,
            )
            shown = _shown(here.site, part, read_details(connection, part), confirmed, selection.start)
        rows = Rows(shown, total)
        at = query.get("at", "")
        return here.show(
            "review.html",
            QUEUE,
            selection,
            rows,
            focus=min(int(at), len(shown) - 1) if at.isascii() and at.isdecimal() and len(at) < 9 and shown else -1,
            keep=query.get("allow") != "no",
            **context,
        )

    @router.post("/review/answer", response_model=None)
    def answer(
        here: Here,
        one: Annotated[str, _FIELD] = "",
        bulk: Annotated[str, _FIELD] = "",
        row: Annotated[list[Annotated[str, _ROW]] | None, Form()] = None,
        note: Annotated[str, _FIELD] = "",
        allow: Annotated[str, _FIELD] = "",
        looks: Annotated[str, _FIELD] = "",
        distance: Annotated[str, _FIELD] = "",
        deny: Annotated[str, _FIELD] = "",
        back: Annotated[str, _FIELD] = PATH,
    ) -> Response:
        target = _back(back)
        if one:
            said, _, rest = one.partition(" ")
            key, _, at = rest.partition(" ")
            keys, place = [key], int(at) if at.isascii() and at.isdecimal() and len(at) < 9 else 0
        else:
            said, keys, place = bulk, row or [], 0
        opinion = _opinion(said)
        target = _with(target, at=str(place), **({} if allow else {"allow": "no"}))
        if not keys:
            return here.goto(_with(target, fault="none"))
        wish = _wish(here, opinion, note, allow, looks, distance, deny)
        audit = here.site.surroundings.audit
        try:
            with here.site.database.writing() as connection:
                given = answer_rows(
                    connection,
                    here.actor,
                    [_asked(each) for each in keys],
                    opinion,
                    note=note.strip(),
                    at=here.now_ms,
                    settings=audit.review,
                    verified_lists=audit.verified_lists,
                    wish=wish,
                )
        except ClusterChanged:
            return here.goto(_with(target, fault="changed"))
        except ReviewRefused:
            return here.goto(_with(target, fault="cap"))
        if given is None:
            return here.goto(_with(target, fault="gone"))
        if wish is not None:
            _publish(here, publisher, insist=False)
        return here.goto(target)

    @router.post("/review/undo", response_model=None)
    def take_back(here: Here, answer: Annotated[str, _FIELD] = "", back: Annotated[str, _FIELD] = PATH) -> Response:
        target = _back(back)
        try:
            with here.site.database.writing() as connection:
                undo(connection, here.actor, answer, at=here.now_ms)
        except ReviewRefused:
            return here.goto(_with(target, fault="undo"))
        _publish(here, publisher, insist=False)
        return here.goto(target, "undone")

    @router.post("/review/break", response_model=None)
    def put_off(here: Here, back: Annotated[str, _FIELD] = PATH) -> Response:
        with here.site.database.writing() as connection:
            record(connection, here.actor, PUT_OFF, at=here.now_ms)
        return here.goto(_back(back))

    @router.post("/review/overrides", response_model=None)
    def publish(here: Here, back: Annotated[str, _FIELD] = PATH) -> Response:
        waiting = _publish(here, publisher, insist=True)
        target = _back(back)
        return here.goto(_with(target, fault="kafka")) if waiting else here.goto(target, "overrides")

    @router.get("/review/{tenant}/{sha256}", response_model=None)
    def show_one(here: Here, tenant: str, sha256: str) -> Response:
        selection = here.select(MEDIA)
        verified = here.site.surroundings.audit.verified_lists
        with here.site.database.reading() as connection:
            cluster = _cluster(here, connection, tenant, sha256, start=selection.start, size=selection.size)
            context = _context(here, connection)
            row = read_one(connection, here.user.name, tenant, cluster.name, verified_lists=verified)
            shown = None
            if row is not None:
                confirmed = confirmed_by_instance(here.site)
                [shown] = _shown(here.site, [row], read_details(connection, [row]), confirmed, 0)
            kept = guarded(connection, [each.id for each in cluster.media])
        sentences = here.site.surroundings.sentences
        return here.show(
            "review_image.html",
            MEDIA,
            selection,
            Rows(cluster.media, cluster.total),
            cluster=cluster,
            shown=shown,
            waiting=waiting_of(row),
            keep=True,
            guarded=kept,
            reason=lambda rule: sentence_of(rule, sentences),
            stratum=stratum_in_words,
            picture=lambda medium: viewing_link(here, tenant, medium.sha256),
            tones=_TONES,
            **context,
        )

    @router.post("/review/{tenant}/{sha256}", response_model=None)
    def answer_one(
        here: Here,
        tenant: str,
        sha256: str,
        opinion: Annotated[str, _FIELD] = "",
        medium: Annotated[list[Annotated[str, _ROW]] | None, Form()] = None,
        key: Annotated[str, _FIELD] = "",
        note: Annotated[str, _FIELD] = "",
        allow: Annotated[str, _FIELD] = "",
        looks: Annotated[str, _FIELD] = "",
        distance: Annotated[str, _FIELD] = "",
        deny: Annotated[str, _FIELD] = "",
    ) -> Response:
        said = _opinion(opinion)
        wish = _wish(here, said, note, allow, looks, distance, deny)
        audit = here.site.surroundings.audit
        path = f"{PATH}/{tenant}/{sha256}"
        common: dict[str, Any] = {"note": note.strip(), "at": here.now_ms, "settings": audit.review, "wish": wish}
        try:
            with here.site.database.writing() as connection:
                cluster = _cluster(here, connection, tenant, sha256, start=0, size=1)
                path = path_of(tenant, cluster.name)
                if medium:
                    hashes = [_hash(each) for each in medium]
                    given = answer_media(connection, here.actor, tenant, hashes, said, **common)
                elif key:
                    verified = audit.verified_lists
                    given = answer_rows(connection, here.actor, [_asked(key)], said, verified_lists=verified, **common)
                else:
                    return here.goto(_with(path, fault="none"))
        except ClusterChanged:
            return here.goto(_with(path, fault="changed"))
        except ReviewRefused:
            return here.goto(_with(path, fault="cap"))
        if given is None:
            return here.goto(_with(path, fault="gone"))
        if wish is not None:
            _publish(here, publisher, insist=False)
        return here.goto(path)

    return Area("Review", PATH, Role.REVIEWER, router)


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

    return Area("Reviewed", SETTLED_PATH, Role.VIEWER, router)


def path_of(tenant: str, sha256: bytes) -> str:
    """The page of an image and of all that look like it."""
    return f"{PATH}/{tenant}/{sha256.hex()}"


def with_evidence(site: Site) -> set[str]:
    """The instances that have evidence against them: a level above 0, or a confirmed incident."""
    return {each.instance for each in site.assessor.newest().assessment if each.level or each.decision.incidents}


def confirmed_by_instance(site: Site) -> dict[str, Confirmed]:
    """The confirmed incidents of each instance that is assessed, as of the newest assessment."""
    return {
        each.instance: Confirmed(
            each.decision.since, frozenset((one.day, one.cluster) for one in each.decision.incidents)
        )
        for each in site.assessor.newest().assessment
    }


def sentence_of(rule: str, sentences: Mapping[str, str]) -> str:
    """What a rule means, in words: the policy's own, or that it is a list's; else its name."""
    if rule.startswith("list:"):
        return f"The known-hash list {rule.removeprefix('list:')} has it."
    return sentences.get(rule, f"Rule {rule}")


def others_in_words(others: int, agree: bool) -> str:
    """Such as ``2 others, who agree``."""
    if others < 2:
        return "1 other" if others else "nobody else"
    return f"{others} others, who {'agree' if agree else 'do not agree'}"


def stratum_in_words(stratum: Stratum) -> str:
    """What judged."""
    if stratum.is_list:
        return f"known-hash list {stratum.hash_list}"
    models = ", ".join(sorted(stratum.models))
    return f"{models}; policy {stratum.policy}" + (f"; list {stratum.hash_list}" if stratum.hash_list else "")


def seen_in_words(seen: Seen) -> str:
    """An origin in one line."""
    parts = [seen.place]
    parts += [f"author on {seen.author} ({seen.author_sure})"] if seen.author else []
    parts += [f"in {seen.community} ({seen.community_sure})"] if seen.community else []
    parts += [f"image on {seen.host} ({seen.host_sure})"] if seen.host else []
    return ", ".join([*parts, f"by {seen.method}"])


def domains(names: Sequence[str]) -> Cell:
    """Domains in a cell; unknown where there is none."""
    return Listed([Said(each) for each in names]) if names else None


def _shown(
    site: Site,
    rows: Sequence[Waiting],
    details: Sequence[Details],
    confirmed: Mapping[str, Confirmed],
    start: int,
) -> list[Shown]:
    surroundings = site.surroundings
    return [
        Shown(
            turn=start + place + 1,
            row=row,
            details=each,
            reasons=_reasons(each, surroundings.sentences),
            if_confirmed=tuple(
                foresee(
                    row.reviewed,
                    each.incidents,
                    cluster=each.cluster,
                    confirmed=confirmed,
                    local_domains=surroundings.local_domains,
                )
            ),
        )
        for place, (row, each) in enumerate(zip(rows, details, strict=True))
    ]


def _reasons(details: Details, sentences: Mapping[str, str]) -> tuple[str, ...]:
    rules = {each for each in details.rules if each.removeprefix("list:") not in details.lists}
    lists = [sentence_of(f"list:{each}", sentences) for each in sorted(details.lists)]
    return (*lists, *(sentence_of(each, sentences) for each in sorted(rules)))


def _context(here: Visit, connection: Connection) -> dict[str, Any]:
    """What every page of the queue has: pace, last answer, overrides that are not in force, faults."""
    settings = here.site.surroundings.audit.review
    query = here.request.query_params
    return {
        "pace": read_pace(connection, here.user.name, settings, here.now_ms),
        "last": last_answer(connection, here.user.name, since=here.now_ms - _UNDO_MS),
        "unpublished": count_unpublished(connection),
        "fault": FAULTS.get(query.get("fault", ""), ""),
        "opinions": OPINIONS,
        "said_so": SAID_SO,
        "is_admin": here.user.role.includes(Role.ADMIN),
        "distance": DISTANCE,
        "distance_most": DISTANCE_MOST,
        "named_most": _NAMED_MOST,
        "break_after": settings.break_after_min,
    }


def _cluster(here: Visit, connection: Connection, tenant: str, sha256: str, *, start: int, size: int) -> Cluster:
    try:
        digest = bytes.fromhex(sha256)
    except ValueError:
        digest = b""
    plain = tenant.isascii() and tenant.isprintable()
    found = (
        read_cluster(connection, here.user.name, tenant, digest, start=start, size=size)
        if len(digest) == 32 and plain
        else None
    )
    if found is None:
        raise HTTPException(404)
    return found


def _publish(here: Visit, publisher: Publisher, *, insist: bool) -> int:
    """Bring what was ordered to Kafka; how many overrides are not there yet."""
    told = publisher.publish(here.site.database, here.site.surroundings.broker, here.actor, insist=insist)
    return told.waiting


def _opinion(text: str) -> Opinion:
    try:
        return Opinion(text)
    except ValueError:
        raise HTTPException(422) from None


def _asked(key: str) -> Asked:
    tenant, _, rest = key.partition("/")
    name, _, seen = rest.partition("/")
    return Asked(tenant, _hash(name), seen)


def _hash(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise HTTPException(422)
    return digest


def _wish(here: Visit, opinion: Opinion, note: str, allow: str, looks: str, distance: str, deny: str) -> Wish | None:
    """The override that goes with an answer. Letting exact bytes in is a reviewer's; all else is for admins."""
    is_admin = here.user.role.includes(Role.ADMIN)
    far = distance.strip()
    if looks and is_admin and not (far.isascii() and far.isdecimal() and int(far[:4]) <= DISTANCE_MOST):
        raise HTTPException(422)
    reach = int(far) if looks and is_admin else None
    why = f": {note.strip()}" if note.strip() else ""
    if opinion is Opinion.DISMISS and allow:
        return Wish(OverrideEffect.ALLOW, f"false positive, by review{why}"[:500], reach, all_of_them=is_admin)
    if opinion is Opinion.CONFIRM and deny and is_admin:
        return Wish(OverrideEffect.DENY, f"confirmed by review{why}"[:500], reach, all_of_them=True)
    return None


def _back(path: str) -> str:
    """`path` where it leads to the queue, else the queue."""
    own = own_path(path)
    return own if own == PATH or own.startswith((f"{PATH}?", f"{PATH}/")) else PATH


def _with(path: str, **terms: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{urlencode(terms)}" if terms else path
