"""Rescans: how each stands, and what they said of each image, counted as it comes.

An image counts once in each rescan, by what was said of the newest of its records: a rescan over a span in which images
were judged more than once speaks of them more than once. All that a rescan says of one image stands in one partition,
and what is said twice, after a kill, is said in the same words; so the counts are the same however often it is read.

Whether an image still stands as it did is not asked here: `fediwarden rescan report` does, from the topics.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, or_, select

from federation_audit.rescans.held import ERASED
from federation_audit.store.facts import DECISIONS, LATEST, Horizon, Role
from federation_audit.store.identities import Identities, TextKind
from federation_audit.store.rows import increase, put, remove, rows_among
from federation_audit.store.tables import (
    JOINS,
    JUDGEMENTS,
    MEDIA,
    RESCAN_COUNTS,
    RESCAN_FLIPS,
    RESCAN_IMAGES,
    RESCANS,
    SIGHTINGS,
    STRATA,
    TEXTS,
)
from schemas.broker import Received
from schemas.messages import Decision, Rejudged, RescanJudged, RescanOrdered, RescanState, RescanTier, decisions_of
from schemas.topics import RESCAN_JOBS

UNKNOWN: Final = -1
"""The decision before, where it is not known."""

DROPPED_AT_A_TIME: Final = 50_000

_RANK: Final = {decision: number for number, decision in enumerate(DECISIONS)}
_REJECT: Final = _RANK[Decision.REJECT]
_BETWEEN: Final = "\t"
_LIST_MOST: Final = 100
_HELD_MOST: Final = 40
_RULES_MOST_BYTES: Final = 1_800  # all of it stands in an index: see facts.INDEXED_MOST


class Outcome(NamedTuple):
    """What was said of images: decisions "" where there is none, why they are held, the list and the rules that hit."""

    before: str
    after: str
    held: str
    hash_list: str
    rules: tuple[str, ...]

    @property
    def flips(self) -> bool:
        """Whether they are decided differently, as far as the words themselves tell."""
        return bool(self.before and self.after) and self.before != self.after


@dataclass(frozen=True, slots=True)
class RuleSaid:
    """In how many images a rule (or a list) fires now, and how many of them are decided differently."""

    fires: int
    flips: int


@dataclass(slots=True)
class Said:
    """What a rescan said, in images: `decisions` by old and new decision (None: it is not known), `held` by why,
    `other` that stand otherwise than those it is about. `rules` has None for flips where the store does not tell."""

    spoken: int = 0
    decisions: Counter[tuple[Decision | None, Decision]] = field(default_factory=Counter)
    rules: dict[str, RuleSaid] = field(default_factory=dict)
    held: Counter[str] = field(default_factory=Counter)
    other: int = 0

    @property
    def flips(self) -> int:
        """Images that are decided differently."""
        return sum(n for (before, after), n in self.decisions.items() if before not in (None, after))

    @property
    def unknown(self) -> int:
        """Images that are decided, and nobody knows how they were before."""
        return sum(n for (before, _), n in self.decisions.items() if before is None)


@dataclass(frozen=True, slots=True)
class Flip:
    """An image that is decided differently. `rules` are those that fire now, `hash_list` the list that it is on."""

    tenant: str
    sha256: bytes
    scan_id: str
    judged_at: int
    before: Decision
    after: Decision
    rules: tuple[str, ...]
    hash_list: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which flips: from one decision to another where that is given, the part of them, and whether the newest first."""

    change: tuple[Decision, Decision] | None = None
    start: int = 0
    most: int = 50
    newest_first: bool = True


def record(connection: Connection, identities: Identities, records: Sequence[Received], horizon: Horizon) -> None:
    """Write what records of rescan.jobs and rescans say, in their order. Others say nothing here."""
    for received in records:
        message = received.message
        if isinstance(message, RescanOrdered):
            _write_job(connection, message)
        elif message is None and received.fault is None and received.topic == RESCAN_JOBS:
            name = (received.key or b"").decode("ascii", "replace")
            connection.execute(delete(RESCANS).where(RESCANS.c.rescan == name))
    said: dict[str, list[RescanJudged]] = {}
    for received in records:
        message = received.message
        if isinstance(message, RescanJudged) and horizon.rescans <= message.judged_at < LATEST:
            said.setdefault(message.rescan, []).append(message)
    for rescan, batches in said.items():
        _write_images(connection, identities, rescan, batches)


def image_number(tenant: str, sha256: bytes) -> int:
    """What an image goes by in a rescan: 64 bits that fit the databases' whole numbers."""
    digest = hashlib.blake2b(sha256, digest_size=8, salt=hashlib.blake2b(tenant.encode(), digest_size=16).digest())
    return int.from_bytes(digest.digest(), "big", signed=True)


def drop_old(connection: Connection, horizon: Horizon) -> bool:
    """Take out a part of what rescans said that were ordered before the horizon; whether there is more. How they stand
    stays: their topic is kept for good."""
    old = (
        select(TEXTS.c.id)
        .join(RESCANS, RESCANS.c.rescan == TEXTS.c.text)
        .where(TEXTS.c.kind == int(TextKind.RESCAN), RESCANS.c.ordered_at < horizon.rescans)
    )
    for rescan_id in connection.scalars(old).all():
        for table in (RESCAN_IMAGES, RESCAN_FLIPS):
            some = select(table.c.image).where(table.c.rescan_id == rescan_id).limit(DROPPED_AT_A_TIME)
            gone = delete(table).where(table.c.rescan_id == rescan_id, table.c.image.in_(some))
            if connection.execute(gone).rowcount == DROPPED_AT_A_TIME:
                return True
        connection.execute(delete(RESCAN_COUNTS).where(RESCAN_COUNTS.c.rescan_id == rescan_id))
    return False


def read_rescans(connection: Connection) -> list[RescanOrdered]:
    """Every rescan as it stands, the one that was ordered last first. Policies are named, without their texts."""
    rows = connection.scalars(select(RESCANS.c.job).order_by(RESCANS.c.ordered_at.desc(), RESCANS.c.rescan.desc()))
    return [RescanOrdered.model_validate_json(row) for row in rows]


def read_rescan(connection: Connection, rescan: str) -> RescanOrdered | None:
    """The rescan of this id; None where there is none."""
    job = connection.scalar(select(RESCANS.c.job).where(RESCANS.c.rescan == rescan))
    return None if job is None else RescanOrdered.model_validate_json(job)


def read_running(connection: Connection) -> RescanOrdered | None:
    """The rescan that is being judged; of several, which cannot be for long, the one that was ordered first."""
    query = select(RESCANS.c.job).where(RESCANS.c.state == RescanState.RUNNING.value)
    job = connection.scalars(query.order_by(RESCANS.c.ordered_at, RESCANS.c.rescan).limit(1)).first()
    return None if job is None else RescanOrdered.model_validate_json(job)


def read_said(connection: Connection, job: RescanOrdered) -> Said:
    """What a rescan has said so far."""
    said = Said()
    rules: Counter[str] = Counter()
    flipping: Counter[str] = Counter()
    for outcome, images in _read_counts(connection, job):
        said.spoken += images
        if outcome.held or not outcome.after:
            said.held[outcome.held or "incomplete"] += images
            continue
        before = Decision(outcome.before) if outcome.before else None
        said.decisions[before, Decision(outcome.after)] += images
        for name in outcome.rules or ((outcome.hash_list,) if outcome.hash_list else ()):
            rules[name] += images
            flipping[name] += images if outcome.flips else 0
    if job.tier is RescanTier.FRAMES:
        _look_up_before(connection, job, said, flipping)
    said.rules = {name: RuleSaid(count, flipping[name]) for name, count in sorted(rules.items())}
    return said


def read_flips(connection: Connection, job: RescanOrdered, wanted: Wanted) -> tuple[list[Flip], int]:
    """Some of the images that are decided differently, and how many there are in all."""
    query = _flips(job)
    flips = query.subquery()
    if wanted.change is not None:
        was, now = (_RANK[each] for each in wanted.change)
        chosen = select(flips).where(flips.c.before == was, flips.c.after == now)
    else:
        chosen = select(flips)
    total = connection.execute(select(func.count()).select_from(chosen.subquery())).scalar_one()
    order = (flips.c.judged_at, flips.c.image)
    chosen = chosen.order_by(*(each.desc() if wanted.newest_first else each.asc() for each in order))
    rows = connection.execute(chosen.offset(wanted.start).limit(wanted.most)).all()
    texts = _texts(connection, {row.tenant_id for row in rows} | {row.outcome_id for row in rows})
    found = []
    for row in rows:
        outcome = _as_outcome(texts[row.outcome_id])
        before, after = DECISIONS[row.before], DECISIONS[row.after]
        place = (texts[row.tenant_id], bytes(row.sha256), row.scan_id, row.judged_at)
        found.append(Flip(*place, before, after, outcome.rules, outcome.hash_list))
    return found, total


def read_instance_flips(connection: Connection, job: RescanOrdered) -> dict[str, Counter[tuple[Decision, Decision]]]:
    """The flips of each author's instance that is surely known; "" has those whose instance is not."""
    flips = _flips(job).subquery()
    of_media = and_(MEDIA.c.sha256 == flips.c.sha256, MEDIA.c.tenant_id == flips.c.tenant_id)
    columns = (flips.c.image, flips.c.before, flips.c.after, SIGHTINGS.c.instance_id)
    sure = (SIGHTINGS.c.role == int(Role.AUTHOR), SIGHTINGS.c.sure > 0)
    with_media = select(*columns).select_from(flips).join(MEDIA, of_media)
    own = with_media.join(SIGHTINGS, SIGHTINGS.c.subject_id == MEDIA.c.id).where(*sure)
    joined = with_media.join(JOINS, JOINS.c.media_id == MEDIA.c.id).join(
        SIGHTINGS, SIGHTINGS.c.subject_id == JOINS.c.name_id
    )
    behind = own.union(joined.where(*sure)).subquery()
    counted = select(behind.c.instance_id, behind.c.before, behind.c.after, func.count()).group_by(
        behind.c.instance_id, behind.c.before, behind.c.after
    )
    known = select(behind.c.image)
    unknown = (
        select(flips.c.before, flips.c.after, func.count())
        .where(flips.c.image.not_in(known))
        .group_by(flips.c.before, flips.c.after)
    )
    rows = connection.execute(counted).all()
    texts = _texts(connection, {row.instance_id for row in rows})
    found: dict[str, Counter[tuple[Decision, Decision]]] = {}
    for instance_id, before, after, images in rows:
        found.setdefault(texts[instance_id], Counter())[DECISIONS[before], DECISIONS[after]] += images
    for before, after, images in connection.execute(unknown):
        found.setdefault("", Counter())[DECISIONS[before], DECISIONS[after]] += images
    return found


def _write_job(connection: Connection, job: RescanOrdered) -> None:
    kept = job.model_copy(update={"policies": dict.fromkeys(job.policies, "")})
    row = {"rescan": job.rescan, "ordered_at": min(job.ordered_at, LATEST), "state": job.state.value}
    put(connection, RESCANS, [row | {"job": _plain(kept.model_dump_json())}])


def _write_images(connection: Connection, identities: Identities, rescan: str, batches: Iterable[RescanJudged]) -> None:
    rescan_id = identities.texts(connection, TextKind.RESCAN, [rescan])[rescan]
    newest: dict[int, tuple[Rejudged, int]] = {}
    for batch in batches:
        for each in batch.images:
            number = image_number(each.tenant, each.sha256)
            known = newest.get(number)
            if known is None or known[0].offset < each.offset:
                newest[number] = each, batch.judged_at
    query = select(RESCAN_IMAGES.c.image, RESCAN_IMAGES.c.at, RESCAN_IMAGES.c.outcome_id)
    query = query.where(RESCAN_IMAGES.c.rescan_id == rescan_id)
    there = {row.image: row for row in rows_among(connection, query, RESCAN_IMAGES.c.image, newest)}
    fresh = {
        number: said for number, said in newest.items() if (row := there.get(number)) is None or row.at < said[0].offset
    }
    outcomes = {number: _outcome_text(each) for number, (each, _) in fresh.items()}
    ids = identities.texts(connection, TextKind.RESCAN_OUTCOME, set(outcomes.values()))
    tenants = identities.texts(connection, TextKind.TENANT, {each.tenant for each, _ in fresh.values()})
    counts: Counter[int] = Counter()
    images, flips, none = [], [], []
    for number, (each, judged_at) in fresh.items():
        outcome_id = ids[outcomes[number]]
        key = {"rescan_id": rescan_id, "image": number}
        images.append(key | {"at": each.offset, "outcome_id": outcome_id})
        counts[outcome_id] += 1
        if (row := there.get(number)) is not None:
            counts[row.outcome_id] -= 1
        if each.after is None or each.held or each.before is each.after:
            if row is not None:
                none.append(key)
            continue
        flips.append(
            key
            | {
                "tenant_id": tenants[each.tenant],
                "sha256": each.sha256,
                "scan_id": _plain(each.scan_id),
                "judged_at": judged_at,
                "before": UNKNOWN if each.before is None else _RANK[each.before],
                "after": _RANK[each.after],
                "outcome_id": outcome_id,
            }
        )
    put(connection, RESCAN_IMAGES, images)
    put(connection, RESCAN_FLIPS, flips)
    remove(connection, RESCAN_FLIPS, none)
    changed = [
        {"rescan_id": rescan_id, "outcome_id": outcome_id, "images": images_more}
        for outcome_id, images_more in counts.items()
        if images_more
    ]
    increase(connection, RESCAN_COUNTS, changed)
    if any(each < 0 for each in counts.values()):
        connection.execute(delete(RESCAN_COUNTS).where(RESCAN_COUNTS.c.images == 0))


def _outcome_text(each: Rejudged) -> str:
    words = (
        "" if each.before is None else each.before.value,
        "" if each.after is None else each.after.value,
        each.held[:_HELD_MOST],
        each.hash_list[:_LIST_MOST],
        _rules_text(frozenset(rule.name for rule in each.rules)),
    )
    return _BETWEEN.join(_plain(word.replace(_BETWEEN, " ")) for word in words)


@lru_cache(maxsize=1_000)
def _rules_text(names: frozenset[str]) -> str:
    """Joined by comma, in order; those that are too many for an index are left out."""
    text = ",".join(sorted(names))
    if len(text.encode()) <= _RULES_MOST_BYTES:
        return text
    return text.encode()[:_RULES_MOST_BYTES].decode("utf-8", "ignore").rpartition(",")[0]


def _plain(text: str) -> str:
    """`text` as every database takes it: PostgreSQL has no NUL in texts."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _as_outcome(text: str) -> Outcome:
    before, after, held, hash_list, rules = text.split(_BETWEEN)
    return Outcome(before, after, held, hash_list, tuple(rules.split(",")) if rules else ())


def _read_counts(connection: Connection, job: RescanOrdered) -> list[tuple[Outcome, int]]:
    rescans, outcomes = TEXTS.alias(), TEXTS.alias()
    query = (
        select(outcomes.c.text, RESCAN_COUNTS.c.images)
        .join(outcomes, outcomes.c.id == RESCAN_COUNTS.c.outcome_id)
        .join(rescans, rescans.c.id == RESCAN_COUNTS.c.rescan_id)
        .where(rescans.c.kind == int(TextKind.RESCAN), rescans.c.text == job.rescan)
    )
    return [(_as_outcome(text), int(images)) for text, images in connection.execute(query)]


def _look_up_before(connection: Connection, job: RescanOrdered, said: Said, flipping: Counter[str]) -> None:
    """Put what was decided before in its place, for a rescan of frames, which do not tell."""
    stood = _with_before(job).subquery()
    query = select(stood.c.before, stood.c.outcome_id, func.count()).group_by(stood.c.before, stood.c.outcome_id)
    rows = connection.execute(query).all()
    texts = _texts(connection, {outcome_id for _, outcome_id, _ in rows})
    asked = decisions_of(job.only)
    for before, outcome_id, images in rows:
        outcome = _as_outcome(texts[outcome_id])
        was, after = DECISIONS[before], Decision(outcome.after)
        said.decisions[None, after] -= images
        if was is Decision.REJECT:
            said.held[ERASED] += images
            continue
        if asked is not None and was not in asked:
            said.other += images
            continue
        said.decisions[was, after] += images
        for name in outcome.rules if was is not after else ():
            flipping[name] += images
    said.decisions = +said.decisions


def _flips(job: RescanOrdered) -> Select[Any]:
    """The images that are decided differently: the columns of `RESCAN_FLIPS`, `before` being a decision."""
    if job.tier is not RescanTier.FRAMES:
        return select(RESCAN_FLIPS).where(RESCAN_FLIPS.c.rescan_id == _number(job), RESCAN_FLIPS.c.before != UNKNOWN)
    stood = _with_before(job).subquery()
    query = select(stood).where(stood.c.before != stood.c.after, stood.c.before != _REJECT)
    asked = decisions_of(job.only)
    return query if asked is None else query.where(stood.c.before.in_([_RANK[each] for each in asked]))


def _with_before(job: RescanOrdered) -> Select[Any]:
    """The images of a rescan of frames whose decision before is known: that of the newest verdict up to its span's end.

    A list that does not refuse an image leaves the decision to the scanner's verdict. One that was judged anew since in
    the same stratum has no verdict from before any more.
    """
    newest_first = (JUDGEMENTS.c.judged_at, JUDGEMENTS.c.scan_id, JUDGEMENTS.c.decision, JUDGEMENTS.c.stratum_id)
    place = func.row_number().over(
        partition_by=RESCAN_FLIPS.c.image, order_by=tuple(each.desc() for each in newest_first)
    )
    decides: ColumnElement[bool] = or_(STRATA.c.models != "", JUDGEMENTS.c.decision == _REJECT)
    columns = [column for column in RESCAN_FLIPS.c if column.name != "before"]
    ranked = (
        select(*columns, JUDGEMENTS.c.decision.label("before"), place.label("place"))
        .join(MEDIA, and_(MEDIA.c.sha256 == RESCAN_FLIPS.c.sha256, MEDIA.c.tenant_id == RESCAN_FLIPS.c.tenant_id))
        .join(JUDGEMENTS, JUDGEMENTS.c.media_id == MEDIA.c.id)
        .join(STRATA, STRATA.c.id == JUDGEMENTS.c.stratum_id)
        .where(RESCAN_FLIPS.c.rescan_id == _number(job), JUDGEMENTS.c.judged_at <= job.until, decides)
        .subquery()
    )
    return select(*(column for column in ranked.c if column.name != "place")).where(ranked.c.place == 1)


def _number(job: RescanOrdered) -> Any:
    return select(TEXTS.c.id).where(TEXTS.c.kind == int(TextKind.RESCAN), TEXTS.c.text == job.rescan).scalar_subquery()


def _texts(connection: Connection, numbers: Collection[int]) -> dict[int, str]:
    query = select(TEXTS.c.id, TEXTS.c.text)
    return {row.id: row.text for row in rows_among(connection, query, TEXTS.c.id, numbers)}
