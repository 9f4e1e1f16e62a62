"""The queue: what waits for a reviewer, in the order in which it is worked.

A row is a cluster in one tenant: its media that are flagged now, that no verified list has, that are not settled, and
that the reviewer has not answered yet. Rows without pixels. Their order goes by whether others said something, never by
what.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, case, func, select

from federation_audit.reviewing.flagged import Flagged, Integers, holds, read_flagged
from federation_audit.reviewing.outcomes import Opinion, Outcome, Reviewed, outcome_from, read_reviewed
from federation_audit.reviewing.overriding import read_lists
from federation_audit.reviewing.tables import REVIEWS
from federation_audit.store.facts import DECISIONS, Role
from federation_audit.store.identities import TextKind
from federation_audit.store.queries import name_clusters
from federation_audit.store.rows import among, chunks, read_integers
from federation_audit.store.tables import (
    EVIDENCE,
    FLAGS,
    JOINS,
    JUDGEMENTS,
    MEDIA,
    SIGHTINGS,
    TEXTS,
)
from schemas.messages import Decision

_NOBODY: Integers = np.empty(0, dtype=np.int64)
_SETTLED = (Outcome.CONFIRMED, Outcome.DISMISSED)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row. `name` is the cluster's smallest sha256 in this tenant, by which it goes; `media` are the ids and hashes
    that wait for the reviewer, by hash.

    `reviewed` has what others said, by id: not for the reviewer's eyes. `with_evidence`: an author's instance of it has
    evidence against it already.
    """

    tenant: str
    name: bytes
    cluster: int
    media: tuple[tuple[int, bytes], ...]
    oldest: int
    reviewed: Mapping[int, Reviewed]
    with_evidence: bool

    @property
    def seen(self) -> str:
        """Names what is shown: an answer is for this, and not for what has come since."""
        return digest_of(sha256 for _, sha256 in self.media)

    @property
    def others(self) -> set[str]:
        """Who else reviewed some of it."""
        return {each.reviewer for reviewed in self.reviewed.values() for each in reviewed.reviews}

    @property
    def others_agree(self) -> bool:
        """Whether of each image they say the same."""
        return all(len({each.opinion for each in one.reviews}) == 1 for one in self.reviewed.values())


@dataclass(slots=True)
class Details:
    """What a reviewer is told of a row. Domains and names are as the store has them.

    `cluster` is what the cluster goes by in all tenants together; `near` is how many more images it has there; `rules`
    the names of what fired; `scores` the highest of each; `accounts` are the authors that are known; `incidents` what
    it could add to: author's instance, actor, day; `unattributed` counts images whose author's instance is not known.
    """

    images: int
    cluster: str = ""
    near: int = 0
    rules: set[str] = field(default_factory=set)
    scores: dict[str, float] = field(default_factory=dict)
    lists: set[str] = field(default_factory=set)
    rejected: bool = True
    authors: dict[str, int] = field(default_factory=dict)
    communities: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    accounts: int = 0
    days: set[int] = field(default_factory=set)
    incidents: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    unattributed: int = 0


def digest_of(hashes: Any) -> str:
    """16 hexadecimal digits that name a set of images."""
    return hashlib.sha256(b"".join(sorted(hashes))).hexdigest()[:16]


def read_waiting(
    connection: Connection,
    reviewer: str,
    *,
    verified_lists: Collection[str] = (),
    evidence: Collection[str] = (),
    tenant: str = "",
    author: str = "",
    start: int = 0,
    size: int = 1_000_000,
) -> tuple[list[Waiting], int]:
    """Rows `start` to `start + size` of the queue of `reviewer`, in order, and how many there are in all.

    `evidence` names the instances that have evidence against them. `tenant` and `author` (part of the domain of an
    author's instance) narrow it down. Rows of the same millisecond and tenant go by the store's number of the cluster.
    There may be 100,000 flagged media: only the rows that are returned are read whole.
    """
    done, touched = _answered(connection, reviewer, verified_lists)
    tenants = _tenants(connection)
    chosen = [number for number, text in tenants.items() if tenant in ("", text)]
    media, clusters, whose, at, starts, flagged = _open_media(connection, done, chosen)
    if not len(starts):
        return [], 0
    against = [_numbers(connection, TEXTS.c.text.in_(names)) for names in chunks(set(evidence))]
    accused = np.logical_or.reduceat(_is_from(media, flagged, np.concatenate([_NOBODY, *against])), starts)
    first = accused & np.logical_or.reduceat(_is_among(media, touched), starts)
    by_name = np.array(sorted(tenants, key=tenants.__getitem__))
    rank = np.argsort(by_name)[np.searchsorted(np.sort(by_name), whose[starts])]
    order = np.lexsort((clusters[starts], rank, np.minimum.reduceat(at, starts), ~accused, ~first))
    if author:
        wanted = _numbers(connection, TEXTS.c.text.contains(author.lower(), autoescape=True))
        order = order[np.logical_or.reduceat(_is_from(media, flagged, wanted), starts)[order]]
    part = order[start : start + size]
    places = [(int(clusters[starts[each]]), tenants[int(whose[starts[each]])], bool(accused[each])) for each in part]
    rows = {
        (row.cluster, row.tenant): row
        for row in _open_rows(connection, reviewer, verified_lists, clusters={cluster for cluster, _, _ in places})
    }
    return [_as_waiting(rows[cluster, of], is_accused) for cluster, of, is_accused in places], len(order)


def read_one(
    connection: Connection, reviewer: str, tenant: str, name: bytes, *, verified_lists: Collection[str] = ()
) -> Waiting | None:
    """The row that an image is in, by its hash, as it is now; None where nothing of it waits."""
    cluster = connection.execute(
        select(FLAGS.c.cluster_id)
        .join(MEDIA, MEDIA.c.id == FLAGS.c.media_id)
        .join(TEXTS, TEXTS.c.id == MEDIA.c.tenant_id)
        .where(MEDIA.c.sha256 == name, TEXTS.c.text == tenant)
    ).scalar()
    if cluster is None:
        return None
    rows = _open_rows(connection, reviewer, verified_lists, clusters=[cluster])
    return next((_as_waiting(row, False) for row in rows if row.tenant == tenant), None)


def count_waiting(connection: Connection, *, verified_lists: Collection[str] = ()) -> int:
    """How many rows wait for anybody: not settled, whoever has reviewed them already."""
    done, _ = _answered(connection, "", verified_lists)
    return len(_open_media(connection, done, _tenants(connection)).starts)


def read_details(connection: Connection, rows: Sequence[Waiting]) -> list[Details]:
    """What a reviewer is told of each of `rows`."""
    found = [Details(len(row.media)) for row in rows]
    of = {number: each for row, each in zip(rows, found, strict=True) for number, _ in row.media}
    whole = _sizes(connection, {row.cluster for row in rows})
    names = name_clusters(connection, whole)
    for row, each in zip(rows, found, strict=True):
        each.cluster = names[row.cluster].hex()
        each.near = whole.get(row.cluster, 0) - 1
    for number, lists in read_lists(connection, of).items():
        of[number].lists |= lists
    for number, rules, scores in _flaggings(connection, of):
        of[number].rules |= rules
        for name, score in scores.items():
            of[number].scores[name] = max(score, of[number].scores.get(name, 0.0))
    for number, decision in current_decisions(connection, of).items():
        of[number].rejected = of[number].rejected and decision is Decision.REJECT
    _add_evidence(connection, of)
    _add_places(connection, of)
    return found


def current_decisions(connection: Connection, media: Collection[int]) -> dict[int, Decision]:
    """The decision of each medium's newest judgement."""
    newest: dict[int, tuple[int, str, int]] = {}
    for chunk in chunks(media):
        query = select(
            JUDGEMENTS.c.media_id, JUDGEMENTS.c.judged_at, JUDGEMENTS.c.scan_id, JUDGEMENTS.c.decision
        ).where(among(connection, JUDGEMENTS.c.media_id, chunk))
        for number, *judgement in connection.execute(query):
            newest[number] = max(newest.get(number, (-1, "", 0)), (judgement[0], judgement[1], judgement[2]))
    return {number: DECISIONS[each[2]] for number, each in newest.items()}


class _Open(NamedTuple):
    """The media that are flagged now and not left out, by tenant and cluster: a row of the queue begins at each of
    `starts`. `flagged` has what all of them are from."""

    media: Integers
    clusters: Integers
    whose: Integers
    at: Integers
    starts: Integers
    flagged: Flagged


def _open_media(connection: Connection, done: Collection[int], tenants: Collection[int]) -> _Open:
    """Of these `tenants`, without those that are `done`."""
    # In arrays: SQLite takes four times as long to group so many rows and to look each up in three sets.
    flagged = read_flagged(connection)
    kept = (flagged.now != 0) & ~_is_among(flagged.media, done) & np.isin(flagged.tenants, list(tenants))
    whose, clusters, media, at = (column[kept] for column in flagged[:4])
    starts = np.flatnonzero((np.diff(clusters, prepend=-1) != 0) | (np.diff(whose, prepend=-1) != 0))
    return _Open(media, clusters, whose, at, starts, flagged)


@dataclass(slots=True)
class _Row:
    tenant: str
    cluster: int
    name: bytes
    media: list[tuple[int, bytes]] = field(default_factory=list)
    oldest: int = 0
    reviewed: dict[int, Reviewed] = field(default_factory=dict)


def _open_rows(
    connection: Connection, reviewer: str, verified_lists: Collection[str], *, clusters: Collection[int]
) -> list[_Row]:
    """What waits in `clusters`, by tenant."""
    tenants = _tenants(connection)
    flagged: list[Any] = []
    for chunk in chunks(clusters):
        query = select(
            FLAGS.c.media_id, FLAGS.c.cluster_id, FLAGS.c.flagged_at, MEDIA.c.tenant_id, MEDIA.c.sha256
        ).join(MEDIA, MEDIA.c.id == FLAGS.c.media_id)
        here = among(connection, FLAGS.c.cluster_id, chunk)
        flagged += connection.execute(query.where(FLAGS.c.now == 1, here)).all()
    reviewed = read_reviewed(connection, {bytes(each.sha256) for each in flagged})
    verified = set(verified_lists)
    lists = read_lists(connection, [each.media_id for each in flagged]) if verified else {}
    found: dict[tuple[int, int], _Row] = {}
    for number, cluster, at, tenant_id, hash_ in flagged:
        sha256, tenant = bytes(hash_), tenants[tenant_id]
        row = found.setdefault((cluster, tenant_id), _Row(tenant, cluster, sha256))
        row.name = min(row.name, sha256)
        said = reviewed.get((tenant, sha256))
        hit = bool(lists.get(number, set()) & verified) and not _is_disputed(said)
        if hit or (said is not None and _is_done(said, reviewer)):
            continue
        row.oldest = at if not row.media else min(row.oldest, at)
        row.media.append((number, sha256))
        if said is not None:
            row.reviewed[number] = said
    return [row for row in found.values() if row.media]


def _as_waiting(row: _Row, with_evidence: bool) -> Waiting:
    media = tuple(sorted(row.media, key=lambda each: each[1]))
    return Waiting(row.tenant, row.name, row.cluster, media, row.oldest, row.reviewed, with_evidence)


def _is_done(said: Reviewed, reviewer: str) -> bool:
    return said.outcome in _SETTLED or any(each.reviewer == reviewer for each in said.reviews)


def _is_disputed(said: Reviewed | None) -> bool:
    return said is not None and said.outcome is Outcome.DISPUTED


def _tenants(connection: Connection) -> dict[int, str]:
    query = select(TEXTS.c.id, TEXTS.c.text).where(TEXTS.c.kind == int(TextKind.TENANT))
    return {row.id: row.text for row in connection.execute(query)}


def _answered(connection: Connection, reviewer: str, verified_lists: Collection[str]) -> tuple[set[int], set[int]]:
    """The media that do not wait for `reviewer`, by the store's ids: settled, answered by them, or on a verified list
    and not disputed. And those that others reviewed, and that still wait."""
    given = (
        select(
            REVIEWS.c.tenant,
            REVIEWS.c.sha256,
            _count(REVIEWS.c.opinion == Opinion.CONFIRM.value).label("confirm"),
            _count(REVIEWS.c.opinion == Opinion.DISMISS.value).label("dismiss"),
            _count(REVIEWS.c.reviewer == reviewer).label("own"),
        )
        .group_by(REVIEWS.c.tenant, REVIEWS.c.sha256)
        .subquery()
    )
    query = (
        select(MEDIA.c.id, given.c.confirm, given.c.dismiss, given.c.own)
        .select_from(given)
        .join(TEXTS, (TEXTS.c.kind == int(TextKind.TENANT)) & (TEXTS.c.text == given.c.tenant))
        .join(MEDIA, (MEDIA.c.sha256 == given.c.sha256) & (MEDIA.c.tenant_id == TEXTS.c.id))
    )
    done, touched, disputed = set[int](), set[int](), set[int]()
    columns = [column.tolist() for column in read_integers(connection, query)]
    for number, confirm, dismiss, own in zip(*columns, strict=True):
        outcome = outcome_from(confirm, dismiss)
        (done if own or outcome in _SETTLED else touched).add(number)
        if outcome is Outcome.DISPUTED:
            disputed.add(number)
    verified = set(verified_lists)
    if verified:
        lists = read_lists(connection).items()
        done |= {number for number, names in lists if names & verified and number not in disputed}
    return done, touched - done


def _count(what: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((what, 1), else_=0))


def _is_among(numbers: Integers, ids: Collection[int]) -> npt.NDArray[np.bool_]:
    return holds(np.fromiter(ids, np.int64, count=len(ids)), numbers)


def _is_from(media: Integers, flagged: Flagged, instances: Integers) -> npt.NDArray[np.bool_]:
    """Which of `media` authors of these `instances` sent."""
    return holds(flagged.sent[holds(instances, flagged.sent_from)], media)


def _numbers(connection: Connection, matches: ColumnElement[bool]) -> Integers:
    """The instances whose text matches."""
    query = select(TEXTS.c.id).where(TEXTS.c.kind == int(TextKind.INSTANCE), matches)
    [numbers] = read_integers(connection, query)
    return numbers


def _sizes(connection: Connection, clusters: Collection[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for chunk in chunks(clusters):
        query = (
            select(FLAGS.c.cluster_id, func.count())
            .where(among(connection, FLAGS.c.cluster_id, chunk))
            .group_by(FLAGS.c.cluster_id)
        )
        found.update((number, count) for number, count in connection.execute(query))
    return found


def _flaggings(connection: Connection, media: Collection[int]) -> list[tuple[int, set[str], dict[str, float]]]:
    found = []
    for chunk in chunks(media):
        query = select(FLAGS.c.media_id, FLAGS.c.detail).where(among(connection, FLAGS.c.media_id, chunk))
        for number, text in connection.execute(query):
            detail = json.loads(text)
            found.append((number, {rule["name"] for rule in detail["rules"]}, dict(detail["scores"])))
    return found


def _add_evidence(connection: Connection, of: Mapping[int, Details]) -> None:
    columns = (EVIDENCE.c.media_id, EVIDENCE.c.actor_id, EVIDENCE.c.day, TEXTS.c.text)
    accounts: dict[int, set[tuple[str, int]]] = defaultdict(set)
    sent: dict[int, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    attributed: set[int] = set()
    for chunk in chunks(of):
        query = select(*columns).join(TEXTS, TEXTS.c.id == EVIDENCE.c.instance_id)
        for number, actor, day, domain in connection.execute(
            query.where(among(connection, EVIDENCE.c.media_id, chunk))
        ):
            details = of[number]
            attributed.add(number)
            details.days.add(day)
            details.incidents.setdefault(domain, set()).add((actor, day))
            sent[id(details)][domain].add(number)
            if actor:
                accounts[id(details)].add((domain, actor))
    for number, details in of.items():
        details.unattributed += number not in attributed
        details.accounts = len(accounts[id(details)])
        details.authors = {domain: len(media) for domain, media in sent[id(details)].items()}


def _add_places(connection: Connection, of: Mapping[int, Details]) -> None:
    roles = (int(Role.COMMUNITY), int(Role.HOST))
    for chunk in chunks(of):
        here = (SIGHTINGS.c.role.in_(roles), SIGHTINGS.c.sure > 0)
        own = (
            select(SIGHTINGS.c.subject_id, SIGHTINGS.c.role, TEXTS.c.text)
            .join(TEXTS, TEXTS.c.id == SIGHTINGS.c.instance_id)
            .where(among(connection, SIGHTINGS.c.subject_id, chunk), *here)
        )
        joined = (
            select(JOINS.c.media_id, SIGHTINGS.c.role, TEXTS.c.text)
            .join(SIGHTINGS, SIGHTINGS.c.subject_id == JOINS.c.name_id)
            .join(TEXTS, TEXTS.c.id == SIGHTINGS.c.instance_id)
            .where(among(connection, JOINS.c.media_id, chunk), *here)
        )
        for query in (own, joined):
            for number, role, domain in connection.execute(query):
                (of[number].communities if role == int(Role.COMMUNITY) else of[number].hosts).add(domain)
