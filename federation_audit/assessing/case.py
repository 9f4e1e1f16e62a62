"""A case (`federation_audit.cases`) from what the store knows of one instance.

**Which tenant.** A case speaks for one tenant, as its posts and hashes are what came to that one. `read_tenants` says
which there are, those with the most confirmed images first; without a tenant, `build_case` takes the first of them.
Whoever sends a report asks a person where there are several: the incidents that a report lists are then what that
tenant saw. Level, reasons, ratio and counts are of all tenants together, as the assessment is; reports say so.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, func, select

from federation_audit.assessing.assessor import Assessed
from federation_audit.assessing.incidents import read_hosts, surest
from federation_audit.cases import (
    Case,
    Counts,
    Incident,
    Level,
    Presence,
    Ratio,
    Removal,
    RuleHit,
)
from federation_audit.deciding.addresses import addresses_of
from federation_audit.presence.reading import removal_of
from federation_audit.presence.tables import PRESENCES
from federation_audit.statistics.events import Confirmation
from federation_audit.statistics.levels import InstanceAssessment
from federation_audit.store.attributing import SURE_FROM
from federation_audit.store.facts import FLAGGED_FROM
from federation_audit.store.identities import TextKind
from federation_audit.store.memory import uncollected
from federation_audit.store.periods import as_date, as_day
from federation_audit.store.queries import instance_id, read_strata, read_texts
from federation_audit.store.rows import among, chunks, rows_by_bytes
from federation_audit.store.tables import (
    ACTORS,
    EVIDENCE,
    FLAGS,
    JOINS,
    JUDGEMENTS,
    LOOKS,
    MEDIA,
    ORIGINS,
    TEXTS,
)
from schemas.topics import DAY_MS

ORIGINS_MOST: Final = 20_000
"""Origins of a case that are looked at for posts and communities, the newest first: one image may have a million."""

CONFIRMED_BY: Final = {
    Confirmation.REVIEWERS: "two reviewers",
    Confirmation.HASH: "a verified hash list",
}

_SAYS: Final = 'The rule "{}" of this instance fired.'

_Key = tuple[int, int, int]  # actor, day, cluster


def read_tenants(connection: Connection, assessed: Assessed, domain: str) -> list[str]:
    """The tenants that flagged images of `domain` came to: most confirmed first, then most flagged, then by name."""
    number = instance_id(connection, domain)
    if number is None:
        return []
    query = (
        select(TEXTS.c.text, MEDIA.c.sha256)
        .join(MEDIA, MEDIA.c.tenant_id == TEXTS.c.id)
        .where(MEDIA.c.id.in_(select(EVIDENCE.c.media_id).where(EVIDENCE.c.instance_id == number)))
    )
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for tenant, sha256 in connection.execute(query).all():
        counts[tenant][0] += (tenant, bytes(sha256)) in assessed.known.confirmed
        counts[tenant][1] += 1
    return sorted(counts, key=lambda tenant: (-counts[tenant][0], -counts[tenant][1], tenant))


def build_case(
    connection: Connection,
    assessed: Assessed,
    domain: str,
    *,
    since: date,
    until: date,
    tenant: str | None = None,
    link: str = "",
    case_links: Callable[[str, str], str] | None = None,
    sentences: Mapping[str, str] | None = None,
    confirmed_only: bool = False,
) -> Case:
    """The case of `domain` (in the form of `schemas.domains`) from `since` up to and with `until`, for `tenant`.

    Its incidents are those of media that are flagged now or confirmed, without dismissed ones; confirmed is what was so
    when `assessed` was made. `case_links` gives the address of an incident's page from tenant and sha256 (hex),
    `sentences` what each rule means, by its name. With `confirmed_only` the others are counted, and not read. Raises
    `ValueError` as `Case` does. Of an instance that nothing is known of there is a case without incidents.
    """
    if tenant is None:
        tenant = next(iter(read_tenants(connection, assessed, domain)), "default")
    found = _Reading(connection, assessed, domain, tenant, since, until, confirmed_only=confirmed_only)
    with uncollected():
        found.read()
    confirmed = [each for each in found.incidents.values() if each.confirmed_by]
    tenants = select(func.count()).select_from(TEXTS).where(TEXTS.c.kind == int(TextKind.TENANT))
    return Case(
        domain=domain,
        tenant=tenant,
        since=since,
        until=until,
        level=_level(assessed, domain),
        reasons=_reasons(assessed, domain),
        counts=_counts(assessed, domain, since, until, found.everywhere, connection.execute(tenants).scalar_one()),
        ratio=_ratio(assessed, domain),
        removal=_removal(confirmed),
        incidents=tuple(each.told(tenant, case_links, sentences or {}) for each in found.incidents.values()),
        contacts=tuple(addresses_of(connection, domain)),
        link=link,
        whole=found.whole,
        left_out=found.left_out,
    )


@dataclass(slots=True)
class _Post:
    """A post's address, and what became of it."""

    url: str
    known_at: int = 0
    looked_at: int | None = None
    state: Presence = Presence.UNKNOWN
    gone_at: int | None = None


@dataclass(slots=True)
class _Found:
    """What is known of an incident."""

    day: int
    actor: str
    media: list[Row[Any]]
    confirmed_by: str
    hosts: set[str] = field(default_factory=set)
    own: str = ""
    pdqs: set[str] = field(default_factory=set)
    lists: set[str] = field(default_factory=set)
    communities: set[str] = field(default_factory=set)
    posts: dict[str, _Post] = field(default_factory=dict)
    posted_at: int | None = None

    def told(self, tenant: str, case_links: Callable[[str, str], str] | None, sentences: Mapping[str, str]) -> Incident:
        sha256s = sorted(bytes(row.sha256).hex() for row in self.media)
        names = sorted({rule["name"] for row in self.media for rule in json.loads(row.detail)["rules"]})
        return Incident(
            case_link="" if case_links is None else case_links(tenant, sha256s[0]),
            day=as_date(self.day),
            actor=self.actor,
            image_host=self.own if self.own in self.hosts else min(self.hosts, default=""),
            communities=tuple(sorted(self.communities)),
            posts=tuple(sorted(self.posts)),
            sha256s=tuple(sha256s),
            pdqs=tuple(sorted(self.pdqs)),
            rules=tuple(RuleHit(name, sentences.get(name, _SAYS.format(name))) for name in names),
            lists=tuple(sorted(self.lists)),
            posted_at=None if self.posted_at is None else _moment(self.posted_at),
            judged_at=_moment(min(row.flagged_at for row in self.media)),
            presence=self._presence(),
            confirmed_by=self.confirmed_by,
        )

    def _presence(self) -> Presence:
        """Up where one post is; gone where all are."""
        states = {post.state for post in self.posts.values()}
        if Presence.UP in states:
            return Presence.UP
        return Presence.GONE if states == {Presence.GONE} else Presence.UNKNOWN


class _Reading:
    """Reads the incidents of one instance and tenant."""

    def __init__(
        self,
        connection: Connection,
        assessed: Assessed,
        domain: str,
        tenant: str,
        since: date,
        until: date,
        *,
        confirmed_only: bool,
    ) -> None:
        self._connection = connection
        self._known = assessed.known
        self._domain = domain
        self._tenant = tenant
        self._since, self._until = since, until
        self._confirmed_only = confirmed_only
        self.left_out = 0
        self.incidents: dict[_Key, _Found] = {}
        self.everywhere: list[_Key] = []
        self.whole = True
        self._of_medium: dict[int, list[_Key]] = defaultdict(list)

    def read(self) -> None:
        """Fill `incidents`, the oldest first, and `everywhere`, the confirmed ones of all tenants."""
        number = instance_id(self._connection, self._domain)
        if number is None:
            return
        self._find_incidents(number)
        self._add_looks_and_lists()
        self._add_hosts()
        self._add_origins(number)
        self._add_presences()

    def _find_incidents(self, number: int) -> None:
        query = (
            select(EVIDENCE.c.actor_id, EVIDENCE.c.day, FLAGS, MEDIA.c.sha256, TEXTS.c.text.label("tenant"))
            .join(FLAGS, FLAGS.c.media_id == EVIDENCE.c.media_id)
            .join(MEDIA, MEDIA.c.id == EVIDENCE.c.media_id)
            .join(TEXTS, TEXTS.c.id == MEDIA.c.tenant_id)
            .where(EVIDENCE.c.instance_id == number)
        )
        these_days = EVIDENCE.c.day.between(as_day(self._since), as_day(self._until))
        rows = self._counted(query.where(these_days))
        nameless = {row.cluster_id for row in rows if not row.actor_id}
        with_names = query.where(EVIDENCE.c.actor_id != 0, ~these_days)
        others = [
            row
            for chunk in chunks(nameless)
            for row in self._counted(with_names.where(among(self._connection, FLAGS.c.cluster_id, chunk)))
        ]
        self.everywhere = [key for key, its in self._behind(rows, others).items() if self._confirmed_by(its)]
        behind = self._behind(*([row for row in some if row.tenant == self._tenant] for some in (rows, others)))
        if self._confirmed_only:
            every = len(behind)
            behind = {key: its for key, its in behind.items() if self._confirmed_by(its)}
            self.left_out = every - len(behind)
        actors = self._actors({actor for actor, _, _ in behind})
        found = {
            key: _Found(key[1], actors.get(key[0], ""), its, self._confirmed_by(its), own=self._domain)
            for key, its in behind.items()
        }
        for key in sorted(found, key=lambda key: (key[1], found[key].actor, min(bytes(r.sha256) for r in behind[key]))):
            self.incidents[key] = found[key]
            for row in behind[key]:
                self._of_medium[row.media_id].append(key)

    def _counted(self, query: Select[Any]) -> list[Row[Any]]:
        return [row for row in self._connection.execute(query).all() if self._counts(row)]

    def _behind(self, rows: Sequence[Row[Any]], others: Sequence[Row[Any]]) -> dict[_Key, list[Row[Any]]]:
        """The incidents that `rows`, of these days, stand for; `others` have accounts on other days."""
        named = {row.cluster_id for some in (rows, others) for row in some if row.actor_id}
        behind: dict[_Key, list[Row[Any]]] = defaultdict(list)
        for row in rows:
            if row.actor_id or row.cluster_id not in named:
                behind[row.actor_id, row.day, row.cluster_id].append(row)
        return behind

    def _counts(self, row: Row[Any]) -> bool:
        medium = (row.tenant, bytes(row.sha256))
        return medium in self._known.confirmed or bool(row.now and medium not in self._known.dismissed)

    def _confirmed_by(self, rows: Iterable[Row[Any]]) -> str:
        how = surest(self._known.confirmed.get((row.tenant, bytes(row.sha256))) for row in rows)
        return "" if how is None else CONFIRMED_BY[how]

    def _actors(self, numbers: Collection[int]) -> dict[int, str]:
        """Short pseudonyms: the key's name, and as much of the pseudonym as tells a case's actors apart."""
        found: dict[int, str] = {}
        for chunk in chunks(numbers):
            for row in self._connection.execute(select(ACTORS).where(among(self._connection, ACTORS.c.id, chunk))):
                found[row.id] = f"{row.key_id}-{bytes(row.pseudonym).hex()[:8]}"
        return found

    def _add_looks_and_lists(self) -> None:
        lists = {number: each.hash_list for number, each in read_strata(self._connection).items() if each.hash_list}
        for chunk in chunks(self._of_medium):
            looks = select(LOOKS.c.media_id, LOOKS.c.pdq).where(among(self._connection, LOOKS.c.media_id, chunk))
            for medium, pdq in self._connection.execute(looks).all():
                for key in self._of_medium[medium]:
                    self.incidents[key].pdqs.add(bytes(pdq).hex())
            hits = select(JUDGEMENTS.c.media_id, JUDGEMENTS.c.stratum_id).where(
                among(self._connection, JUDGEMENTS.c.media_id, chunk), JUDGEMENTS.c.decision >= FLAGGED_FROM
            )
            for medium, stratum in self._connection.execute(hits).all():
                if stratum in lists:
                    for key in self._of_medium[medium]:
                        self.incidents[key].lists.add(lists[stratum])

    def _add_hosts(self) -> None:
        for medium, hosts in read_hosts(self._connection, self._of_medium).items():
            for key in self._of_medium[medium]:
                self.incidents[key].hosts |= hosts

    def _add_origins(self, number: int) -> None:
        columns = (
            ORIGINS.c.actor_id,
            ORIGINS.c.moment_at,
            ORIGINS.c.observed_at,
            ORIGINS.c.post_url,
            ORIGINS.c.community_id,
            ORIGINS.c.community_instance_id,
        )
        sure = (ORIGINS.c.author_instance_id == number, ORIGINS.c.author_confidence >= SURE_FROM)
        rows: list[Any] = []
        for chunk in chunks(self._of_medium):
            own = select(ORIGINS.c.subject_id.label("media_id"), *columns).where(
                among(self._connection, ORIGINS.c.subject_id, chunk), *sure
            )
            joined = (
                select(JOINS.c.media_id, *columns)
                .join(JOINS, JOINS.c.name_id == ORIGINS.c.subject_id)
                .where(among(self._connection, JOINS.c.media_id, chunk), *sure)
            )
            for query in (own, joined):
                newest = query.order_by(ORIGINS.c.observed_at.desc(), ORIGINS.c.id).limit(ORIGINS_MOST + 1 - len(rows))
                rows += self._connection.execute(newest).all()
        self.whole = len(rows) <= ORIGINS_MOST
        texts = read_texts(
            self._connection, {text for row in rows for text in (row.community_id, row.community_instance_id)}
        )
        for row in rows:
            at = row.observed_at if row.moment_at is None else min(row.moment_at, row.observed_at)
            for key in self._of_medium[row.media_id]:
                if key[:2] == (row.actor_id, at // DAY_MS):
                    self._add_origin(self.incidents[key], row, texts)

    def _add_origin(self, found: _Found, row: Row[Any], texts: Mapping[int, str]) -> None:
        community = texts.get(row.community_id) or texts.get(row.community_instance_id)
        if community:
            found.communities.add(community)
        if row.moment_at is not None:
            found.posted_at = row.moment_at if found.posted_at is None else min(found.posted_at, row.moment_at)
        if row.post_url:
            found.posts.setdefault(row.post_url, _Post(row.post_url))

    def _add_presences(self) -> None:
        posts: dict[bytes, list[_Post]] = defaultdict(list)
        for incident in self.incidents.values():
            for url, post in incident.posts.items():
                posts[hashlib.sha256(url.encode()).digest()].append(post)
        columns = [PRESENCES.c[name] for name in ("digest", "state", "known_at", "looked_at", "gone_at")]
        for row in rows_by_bytes(self._connection, columns, PRESENCES.c.digest, posts.keys()):
            for post in posts[bytes(row.digest)]:
                post.state, post.known_at = Presence(row.state), row.known_at
                post.looked_at, post.gone_at = row.looked_at, row.gone_at


def _assessment(assessed: Assessed, domain: str) -> InstanceAssessment | None:
    return assessed.assessment.instances.get(domain)


def _level(assessed: Assessed, domain: str) -> Level:
    found = _assessment(assessed, domain)
    return Level.INSUFFICIENT if found is None else Level(int(found.level))


def _reasons(assessed: Assessed, domain: str) -> tuple[str, ...]:
    found = _assessment(assessed, domain)
    return ("Insufficient: no image of this instance has been counted.",) if found is None else found.reasons


def _ratio(assessed: Assessed, domain: str) -> Ratio | None:
    """None where it would say nothing: few images, or nobody knows what is usual."""
    found = _assessment(assessed, domain)
    if found is None or not found.context.prior.learnt or found.triage.media < found.context.rules.least_media:
        return None
    return Ratio(found.triage.ratio, found.triage.low, found.triage.high)


def _counts(
    assessed: Assessed, domain: str, since: date, until: date, confirmed: Sequence[_Key], tenants: int
) -> Counts:
    """Images of all weeks that `since` to `until` touch; incidents of those days."""
    known = _assessment(assessed, domain) is not None
    parts = assessed.assessment.open(domain) if known else ()
    here = [part for part in parts if part.first <= until and part.last >= since]
    actors = {actor for actor, _, _ in confirmed if actor}
    return Counts(
        exposure=sum(part.media for part in here),
        flagged=sum(part.flagged for part in here),
        expected=sum(part.expected for part in here),
        confirmed=len(confirmed),
        actors=len(actors) or min(len(confirmed), 1),
        days=len({day for _, day, _ in confirmed}),
        tenants=tenants,
    )


def _removal(confirmed: Iterable[_Found]) -> Removal:
    posts = {url: post for each in confirmed for url, post in each.posts.items() if post.looked_at is not None}
    return removal_of(None if post.gone_at is None else post.gone_at - post.known_at for post in posts.values())


def _moment(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, UTC)
