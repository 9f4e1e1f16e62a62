"""A large audit store in minutes: the rows that the recorder would have written of `audit_messages`, put straight in.

Nothing but SQLite. The same images give the same content, by the store's own digest (a unit test says so), with the ids
and the order of rows that batches of 5,000 events leave; indexes are made at the end, which packs them more densely
than a store has them that grew.
"""

import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256 as _hash
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Table, select

from bench.audit_messages import DAYS as DAYS_DRAWN
from bench.audit_messages import (
    KEY_ID,
    OBSERVER,
    TENANT,
    Image,
    community_of,
    domain_of,
    draw,
    invent,
    look_of,
    post_of,
    scan_id_of,
    town_of,
    url_of,
)
from federation_audit.store import evidence
from federation_audit.store.engine import Store
from federation_audit.store.facts import METHODS, PLACES, Facts, Horizon, Origin, Role, gather
from federation_audit.store.identities import ActorKey, Identities, MediaKey, NameKind, StratumKey, TextKind
from federation_audit.store.migrating import open_store
from federation_audit.store.periods import first_day
from federation_audit.store.recorder import Recorder
from federation_audit.store.standings import NOW, measure_of
from federation_audit.store.tables import (
    ACTORS,
    DAYS,
    EVIDENCE,
    FLAGS,
    JOINS,
    JUDGEMENTS,
    LINKS,
    LOOKS,
    MARKS,
    MEDIA,
    NAMES,
    ORIGINS,
    PERIODS,
    SIGHTINGS,
    STATE,
    STRATA,
    TALLIES,
    TEXTS,
)
from schemas.broker import Received
from schemas.messages import OriginMethod, Place
from schemas.topics import DAY_MS

Rows = list[tuple[Any, ...]]

_BATCH = 1_667
_PAGES_KB = 3_000_000
_CERTAIN, _LIKELY = 3, 2
_REJECT = 2


def fill_many(path: Path, images: int, seed: int, instances: int, *, now: int) -> None:
    """Make the store at `path` with `images`, which are `multiply` of `seed` images where they are more."""
    with open_store(f"sqlite:///{path}") as store:
        if images <= seed:
            fill(store, path, images, instances, now=now)
            return
        first = path.with_name(f"{path.name}.seed")
        with open_store(f"sqlite:///{first}") as small:
            fill(small, first, seed, instances, now=now)
        multiply(store, path, first, round(images / seed), now=now)
        first.unlink()


def fill(store: Store, path: Path, images: int, instances: int, *, now: int) -> None:
    """Fill the empty `store`, which is the file `path`, with as many images up to `now` (ms)."""
    ids = _give_ids(store, instances, now)
    database = _connect(store, path)
    tables = {each.name for each in (MEDIA, NAMES, LINKS, JOINS, ORIGINS, ACTORS, EVIDENCE, FLAGS)}
    indexes = database.execute("SELECT name, sql, tbl_name FROM sqlite_master WHERE type = 'index' AND sql > ''")
    later = [(name, sql) for name, sql, table in indexes.fetchall() if table in tables]
    for name, _ in later:
        database.execute(f"DROP INDEX {name}")
    database.execute("BEGIN")
    counts = _Counts(ids)
    number = 1
    drawn = draw(images, instances, now=now)
    while part := list(islice(drawn, _BATCH)):
        for table, rows in _rows_of(part, number, ids, counts):
            _insert(database, table, rows)
        number += 2 * len(part)
    for table, rows in counts.rows():
        _insert(database, table, rows)
    actors = [(each, KEY_ID, pseudonym) for pseudonym, each in ids.actors.items()]
    _insert(database, ACTORS, actors)
    database.execute("COMMIT")
    for _, sql in later:
        database.execute(sql)
    database.close()
    with store.writing() as connection:
        clusters = set(connection.scalars(select(FLAGS.c.cluster_id).distinct()))
        evidence.write_incidents(connection, {}, evidence.count_incidents(connection, clusters))


def multiply(store: Store, path: Path, seed: Path, copies: int, *, now: int) -> None:
    """Fill the empty `store`, which is the file `path`, with `copies` times what the file `seed` has, of `fill` at
    `now`: other images of the same accounts, each copy some days on, round the 300 days. Hashes and ids of origins,
    which stand in indexes in no order, are random; addresses and ids of scans, which stand in none, are the seed's."""
    database = _connect(store, path)
    database.execute("ATTACH ? AS seed", (str(seed),))
    indexes = database.execute(
        "SELECT name, sql FROM main.sqlite_master WHERE type = 'index'"
        " AND name IN ('media_key', 'names_key', 'origins_actor')"
    ).fetchall()
    for name, _ in indexes:
        database.execute(f"DROP INDEX main.{name}")
    highest = database.execute("SELECT max(id) FROM seed.names").fetchone()[0]
    for table in (STATE, TEXTS, STRATA, ACTORS):
        database.execute(f"DELETE FROM main.{table.name}")
        database.execute(f"INSERT INTO main.{table.name} SELECT * FROM seed.{table.name}")
    database.execute("BEGIN")
    columns = [f"{each.name} * {copies}" if each.name in _COUNTED else each.name for each in TALLIES.columns]
    database.execute(f"INSERT INTO main.{TALLIES.name} SELECT {', '.join(columns)} FROM seed.{TALLIES.name}")
    turns = [_Turn(copy * highest, now // DAY_MS - DAYS_DRAWN, copy * DAYS_DRAWN // copies) for copy in range(copies)]
    _insert(database, PERIODS, _periods_of(database, turns))
    _insert(database, DAYS, _days_of(database, turns))
    for turn in turns:
        for table in _EACH:
            columns = [turn.column(table, each.name) for each in table.columns]
            database.execute(f"INSERT INTO main.{table.name} SELECT {', '.join(columns)} FROM seed.{table.name}")
    database.execute("COMMIT")
    for _, sql in indexes:
        database.execute(sql)
    database.close()


_COUNTED = ("exposed", "flagged", "incidents")
_LENGTHS = {"sha256": 32, "digest": 32, "pdq": 32, "id": 16}


class _Turn(NamedTuple):
    """What a copy differs in: numbers of subjects are greater by `shift`, and days are `later`, round from `first`."""

    shift: int
    first: int
    later: int

    def day(self, day: int) -> int:
        """What a day becomes."""
        return self.first + (day - self.first + self.later + DAYS_DRAWN) % DAYS_DRAWN

    def column(self, table: Table, name: str) -> str:
        """What a column of `table` becomes."""
        if name in ("media_id", "name_id", "subject_id", "cluster_id") or (table in (MEDIA, NAMES) and name == "id"):
            return f"{name} + {self.shift}"
        if name == "at" or name.endswith("_at"):
            first, later, round_ = (days * DAY_MS for days in (self.first, self.later, DAYS_DRAWN))
            return f"{first} + ({name} - {first} + {later} + {round_}) % {round_}"
        if name == "day":
            here = f"{self.first} + (day - {self.first} + {self.later} + {DAYS_DRAWN}) % {DAYS_DRAWN}"
            return f"CASE day WHEN 0 THEN 0 ELSE {here} END"  # sightings of communities and hosts have none
        return f"randomblob({_LENGTHS[name]})" if name in _LENGTHS else name


def _periods_of(database: sqlite3.Connection, turns: list[_Turn]) -> Rows:
    seen = database.execute(
        "SELECT instance_id, stratum_id, day, count(*), sum(decision > 0) FROM seed.sightings"
        " JOIN seed.judgements ON media_id = subject_id WHERE role = 1 GROUP BY 1, 2, 3"
    ).fetchall()
    counts: dict[tuple[int, int, int], list[int]] = defaultdict(lambda: [0, 0])
    for turn in turns:
        firsts = {day: first_day(turn.day(day)) for day in {row[2] for row in seen}}
        for instance, stratum, day, images, flagged in seen:
            count = counts[instance, stratum, firsts[day]]
            count[0] += images
            count[1] += flagged
    return [(*key, *count) for key, count in sorted(counts.items())]


def _days_of(database: sqlite3.Connection, turns: list[_Turn]) -> Rows:
    counts: dict[tuple[int, int, int], int] = defaultdict(int)
    for day, tenant, measure, media in database.execute("SELECT * FROM seed.days").fetchall():
        for turn in turns:
            counts[turn.day(day), tenant, measure] += media
    return [(*key, media) for key, media in sorted(counts.items())]


class _Place(NamedTuple):
    """Where the images of a rank come from: ids, the part of a row of `ORIGINS` that is the same for all of them, and
    what `repr` says of such an Origin, around what differs."""

    domain_id: int
    town_id: int
    row: tuple[int, ...]
    said: tuple[str, ...]


class _Ids:
    """What repeats, by the store's ids, and the words of it that are the same for each image."""

    def __init__(self) -> None:
        self.texts: dict[TextKind, dict[str, int]] = {}
        self.strata: list[int] = []
        self.actors: dict[bytes, int] = {}
        self.marks: list[int] = []
        self.detail = ""
        self.rules: dict[bool, int] = {}
        self.places: list[_Place] = []
        self.how = f"{Place.POST_LINK}\n{OriginMethod.DATABASE}"

    @property
    def tenant(self) -> int:
        return self.texts[TextKind.TENANT][TENANT]


def _give_ids(store: Store, instances: int, now: int) -> _Ids:
    Recorder(store, holder="bench", retention_days=395).release()  # it gives the ids of measures
    sample = _sample(now)
    ids = _Ids()
    strata: set[StratumKey] = {stratum for _, stratum in sample.judgements}
    with store.writing() as connection:
        identities = Identities(connection)
        ranks = range(instances)
        rules = {each.rules for each in sample.judgements.values()}
        wanted = {
            TextKind.TENANT: {TENANT},
            TextKind.INSTANCE: {domain_of(rank) for rank in ranks},
            TextKind.COMMUNITY: {community_of(rank) for rank in ranks},
            TextKind.RULES: rules,
            TextKind.MARK: {mark for _, mark in sample.marks} | {measure_of(0), measure_of(_REJECT)},
        }
        ids.texts = {kind: identities.texts(connection, kind, texts) for kind, texts in wanted.items()}
        found = identities.strata(connection, strata)
    ids.strata = [number for key, number in sorted(found.items(), key=lambda each: each[0].policy)]
    ids.marks = [ids.texts[TextKind.MARK][mark] for mark in {mark for _, mark in sample.marks}]
    ids.detail = next(iter(sample.flaggings.values())).detail
    ids.rules = {bool(text): ids.texts[TextKind.RULES][text] for text in rules}
    ids.places = [_place(rank, ids) for rank in ranks]
    return ids


def _place(rank: int, ids: _Ids) -> _Place:
    domain, town, community = domain_of(rank), town_of(rank), community_of(rank)
    place, method = PLACES.index(Place.POST_LINK), METHODS.index(OriginMethod.DATABASE)
    domain_id, town_id = ids.texts[TextKind.INSTANCE][domain], ids.texts[TextKind.INSTANCE][town]
    text = repr(
        Origin(
            observed_at=-1,
            tie=0,
            subject=MediaKey(TENANT, b"-"),
            place=place,
            method=method,
            host=domain,
            host_sure=_CERTAIN,
            author=domain,
            author_sure=_CERTAIN,
            actor=ActorKey(KEY_ID, b"-"),
            community=community,
            community_instance=town,
            community_sure=_LIKELY,
            moment_at=-1,
            moment_sure=_CERTAIN,
            post_url="-",
            observer=OBSERVER,
        )
    )
    said = re.split(r"-1|b?'-'", text)
    row = (place, method, domain_id, _CERTAIN, domain_id, _CERTAIN)
    return _Place(domain_id, town_id, (*row, ids.texts[TextKind.COMMUNITY][community], town_id, _LIKELY), tuple(said))


def _sample(now: int) -> Facts:
    """What the recorder makes of the first messages: of them are words that are the same in all."""
    records = (Received(topic, 0, 0, 0, b"", message, None, 1) for topic, message in invent(3_000, 10, now=now))
    return gather(records, Horizon(0, 0))


def _rows_of(images: list[Image], first: int, ids: _Ids, counts: "_Counts") -> Iterator[tuple[Table, Rows]]:
    """The rows of a batch: its media have the numbers from `first` on, and then its addresses theirs."""
    rows: dict[Table, Rows] = {table: [] for table in _EACH}
    tenant, accept = ids.tenant, ids.rules[False]
    kind, many = int(NameKind.URL), len(images)
    author_role, community_role, host_role = int(Role.AUTHOR), int(Role.COMMUNITY), int(Role.HOST)
    media, judgements, marks, names, links, joins, origins, sightings = (rows[table].append for table in _EACH[:8])
    for medium, image in enumerate(images, first):
        name, at, place = medium + many, image.at, ids.places[image.rank]
        sha256, url, post, scan_id = image.sha256, url_of(image), post_of(image), scan_id_of(image)
        pseudonym = image.pseudonym
        actor = ids.actors.setdefault(pseudonym, len(ids.actors) + 1)
        author, town = place.domain_id, place.town_id
        observed_at, posted_at = at + 5_000, at - 5_000
        media((medium, tenant, sha256))
        rule, decision = (ids.rules[True], _REJECT) if image.flagged else (accept, 0)
        judgements((medium, ids.strata[image.policy], at + 200, scan_id, decision, rule))
        for mark in ids.marks:
            marks((medium, mark, at + 210))
        names((name, tenant, kind, _hash(url.encode()).digest(), url))
        links((medium, name, observed_at))
        joins((medium, name))
        # As `repr` of the Origin is, of which a digest settles ties: making one costs more than the rest of its row.
        text = f"{place.said[0]}{observed_at}{place.said[1]}{sha256!r}{place.said[2]}{pseudonym!r}{place.said[3]}"
        text = f"{text}{posted_at}{place.said[4]}{post!r}{place.said[5]}"
        tie = int.from_bytes(_hash(text.encode()).digest()[:8], "big", signed=True)
        about = f"{TENANT}\n{sha256.hex()}\n{ids.how}\n{post}\n{pseudonym.hex()}"
        found = (_hash(about.encode()).digest()[:16], medium, *place.row[:6], actor, *place.row[6:], posted_at)
        origins((*found, _CERTAIN, post, OBSERVER, observed_at, tie))
        sightings((medium, author_role, author, actor, posted_at // DAY_MS, 1, 1))
        sightings((medium, community_role, town, 0, 0, 1, 1))
        sightings((medium, host_role, author, 0, 0, 1, 1))
        if image.flagged:
            rows[FLAGS].append((medium, medium, at + 200, scan_id, ids.detail, 1, tenant))
            rows[LOOKS].append((medium, look_of(sha256), at + 200))
            rows[EVIDENCE].append((author, medium, actor, posted_at // DAY_MS))
        counts.add(image)
    yield from rows.items()


_EACH = (MEDIA, JUDGEMENTS, MARKS, NAMES, LINKS, JOINS, ORIGINS, SIGHTINGS, FLAGS, LOOKS, EVIDENCE)


class _Counts:
    """What is derived of all images together."""

    def __init__(self, ids: _Ids) -> None:
        self._ids = ids
        self._images: dict[tuple[int, int, bool, int], int] = defaultdict(int)
        self._judged: dict[tuple[int, bool], int] = defaultdict(int)
        self._answered: dict[int, int] = defaultdict(int)

    def add(self, image: Image) -> None:
        """Count an image."""
        at, flagged = image.at, image.flagged
        self._images[image.rank, image.policy, flagged, first_day((at - 5_000) // DAY_MS)] += 1
        self._judged[(at + 200) // DAY_MS, flagged] += 1
        self._answered[(at + 210) // DAY_MS] += 1

    def rows(self) -> Iterator[tuple[Table, Rows]]:
        """Rows of each table."""
        tallies: dict[tuple[int, int, int], list[int]] = defaultdict(lambda: [0, 0])
        periods: dict[tuple[int, int, int], list[int]] = defaultdict(lambda: [0, 0])
        for (rank, policy, flagged, first), images in self._images.items():
            place, stratum = self._ids.places[rank], self._ids.strata[policy]
            ways = ((Role.AUTHOR, place.domain_id), (Role.COMMUNITY, place.town_id), (Role.HOST, place.domain_id))
            counts = [tallies[int(role), number, of] for role, number in ways for of in (stratum, NOW)]
            for count in (*counts, periods[place.domain_id, stratum, first]):
                count[0] += images
                count[1] += images * flagged
        marks, tenant = self._ids.texts[TextKind.MARK], self._ids.tenant
        yield TALLIES, [(*key, *counts, 0) for key, counts in sorted(tallies.items())]
        yield PERIODS, [(*key, *counts) for key, counts in sorted(periods.items())]
        yield (
            DAYS,
            [
                (day, tenant, marks[measure_of(_REJECT * flagged)], images)
                for (day, flagged), images in self._judged.items()
            ]
            + [(day, tenant, mark, images) for day, images in self._answered.items() for mark in self._ids.marks],
        )


def _connect(store: Store, path: Path) -> sqlite3.Connection:
    """To the file of `store`, by the fastest way that loses everything if it is interrupted."""
    store.close()  # the journal can be left out while nobody else has the file open
    database = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_PAGES_KB}", "locking_mode=EXCLUSIVE"):
        database.execute(f"PRAGMA {pragma}")
    return database


def _insert(database: sqlite3.Connection, table: Table, rows: Rows) -> None:
    marks = ", ".join("?" * len(table.columns))
    database.executemany(f"INSERT INTO {table.name} VALUES ({marks})", rows)
