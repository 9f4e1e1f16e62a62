"""The queue: what waits for a reviewer, in the order in which it is worked.

A row is a cluster in one tenant: its media that are flagged now, that no verified list has, that are not settled, and
that the reviewer has not answered yet. Rows without pixels, and without what others said.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select

from federation_audit.reviewing.outcomes import Opinion, Outcome, Review, Reviewed, read_reviewed
from federation_audit.reviewing.overriding import read_lists
from federation_audit.store.facts import DECISIONS, Role
from federation_audit.store.identities import TextKind
from federation_audit.store.rows import among, chunks
from federation_audit.store.tables import (
    EVIDENCE,
    FLAGS,
    JOINS,
    JUDGEMENTS,
    MEDIA,
    SIGHTINGS,
    TEXTS,
)

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

    @property
    def rank(self) -> tuple[bool, bool, int, str, bytes]:
        """Its place in the queue. By whether, and never by what, others said."""
        return not (self.with_evidence and self.others), not self.with_evidence, self.oldest, self.tenant, self.name


@dataclass(slots=True)
class Details:
    """What a reviewer is told of a row. Domains and names are as the store has them.

    `near` is how many more images look like these, in every tenant; `rules` the names of what fired; `scores` the
    highest of each; `accounts` are the authors that are known; `incidents` what it could add to: author's instance,
    actor, day; `unattributed` counts images whose author's instance is not known.
    """

    images: int
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
) -> list[Waiting]:
    """The queue of `reviewer`, in order. `evidence` names the instances that have evidence against them.

    `tenant` and `author` (part of the domain of an author's instance) narrow it down.
    """
    rows = _open_rows(connection, reviewer, verified_lists)
    if tenant:
        rows = [row for row in rows if row.tenant == tenant]
    if author:
        wanted = _media_of(connection, lambda domain: author.lower() in domain)
        rows = [row for row in rows if any(number in wanted for number, _ in row.media)]
    known = set(evidence)
    accused = _media_of(connection, lambda domain: domain in known) if known else set()
    found = [
        Waiting(
            row.tenant,
            row.name,
            row.cluster,
            tuple(sorted(row.media, key=lambda each: each[1])),
            row.oldest,
            row.reviewed,
            any(number in accused for number, _ in row.media),
        )
        for row in rows
    ]
    return sorted(found, key=lambda each: each.rank)


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
    rows = _open_rows(connection, reviewer, verified_lists, cluster=cluster)
    return next(
        (
            Waiting(
                row.tenant,
                row.name,
                row.cluster,
                tuple(sorted(row.media, key=lambda each: each[1])),
                row.oldest,
                row.reviewed,
                False,
            )
            for row in rows
            if row.tenant == tenant
        ),
        None,
    )


def count_waiting(connection: Connection, *, verified_lists: Collection[str] = ()) -> int:
    """How many rows wait for anybody: not settled, whoever has reviewed them already."""
    return len(_open_rows(connection, "", verified_lists))


def read_details(connection: Connection, rows: Sequence[Waiting]) -> list[Details]:
    """What a reviewer is told of each of `rows`."""
    found = [Details(len(row.media)) for row in rows]
    of = {number: each for row, each in zip(rows, found, strict=True) for number, _ in row.media}
    whole = _sizes(connection, {row.cluster for row in rows})
    for row, each in zip(rows, found, strict=True):
        each.near = whole.get(row.cluster, 0) - 1
    for number, lists in read_lists(connection, of).items():
        of[number].lists |= lists
    for number, rules, scores in _flaggings(connection, of):
        of[number].rules |= rules
        for name, score in scores.items():
            of[number].scores[name] = max(score, of[number].scores.get(name, 0.0))
    for number, decision in current_decisions(connection, of).items():
        of[number].rejected = of[number].rejected and decision == "reject"
    _add_evidence(connection, of)
    _add_places(connection, of)
    return found


def current_decisions(connection: Connection, media: Collection[int]) -> dict[int, str]:
    """The decision of each medium's newest judgement."""
    newest: dict[int, tuple[int, str, int]] = {}
    for chunk in chunks(media):
        query = select(
            JUDGEMENTS.c.media_id, JUDGEMENTS.c.judged_at, JUDGEMENTS.c.scan_id, JUDGEMENTS.c.decision
        ).where(among(connection, JUDGEMENTS.c.media_id, chunk))
        for number, *judgement in connection.execute(query):
            newest[number] = max(newest.get(number, (-1, "", 0)), (judgement[0], judgement[1], judgement[2]))
    return {number: DECISIONS[each[2]].value for number, each in newest.items()}


@dataclass(slots=True)
class _Row:
    tenant: str
    cluster: int
    name: bytes
    media: list[tuple[int, bytes]] = field(default_factory=list)
    oldest: int = 0
    reviewed: dict[int, Reviewed] = field(default_factory=dict)


def _open_rows(
    connection: Connection, reviewer: str, verified_lists: Collection[str], *, cluster: int | None = None
) -> list[_Row]:
    tenants = {
        row.id: row.text
        for row in connection.execute(select(TEXTS.c.id, TEXTS.c.text).where(TEXTS.c.kind == int(TextKind.TENANT)))
    }
    reviewed = read_reviewed(connection)
    verified = set(verified_lists)
    sure = {number for number, names in read_lists(connection).items() if names & verified} if verified else set()
    query = select(FLAGS.c.media_id, FLAGS.c.cluster_id, FLAGS.c.flagged_at, MEDIA.c.tenant_id, MEDIA.c.sha256).join(
        MEDIA, MEDIA.c.id == FLAGS.c.media_id
    )
    query = query.where(FLAGS.c.now == 1)
    if cluster is not None:
        query = query.where(FLAGS.c.cluster_id == cluster)
    found: dict[tuple[int, int], _Row] = {}
    for number, its_cluster, at, tenant_id, hash_ in connection.execute(query):
        sha256 = bytes(hash_)
        tenant = tenants[tenant_id]
        row = found.get((its_cluster, tenant_id))
        if row is None:
            row = found[its_cluster, tenant_id] = _Row(tenant, its_cluster, sha256)
        row.name = min(row.name, sha256)
        said = reviewed.get((tenant, sha256))
        hit = number in sure and (said is None or said.outcome is not Outcome.DISPUTED)
        if hit or (said is not None and _is_done(said, reviewer)):
            continue
        row.oldest = at if not row.media else min(row.oldest, at)
        row.media.append((number, sha256))
        if said is not None:
            row.reviewed[number] = said
    return [row for row in found.values() if row.media]


def _is_done(said: Reviewed, reviewer: str) -> bool:
    return said.outcome in _SETTLED or any(each.reviewer == reviewer for each in said.reviews)


def _media_of(connection: Connection, matches: Any) -> set[int]:
    """Media that authors of the instances whose domain matches sent."""
    domains = select(TEXTS.c.id, TEXTS.c.text).where(TEXTS.c.kind == int(TextKind.INSTANCE))
    ids = [number for number, domain in connection.execute(domains) if matches(domain)]
    found: set[int] = set()
    for chunk in chunks(ids):
        found.update(
            connection.scalars(select(EVIDENCE.c.media_id).where(among(connection, EVIDENCE.c.instance_id, chunk)))
        )
    return found


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


def opinions_of_others(row: Waiting) -> list[list[Opinion]]:
    """What others said of each image that they reviewed. For working things out, never to be shown before an answer."""
    return [[each.opinion for each in one.reviews] for one in row.reviewed.values()]


def as_review(row: Any) -> Review:
    """A row of the table."""
    return Review(row.reviewer, Opinion(row.opinion), row.at, row.note)
