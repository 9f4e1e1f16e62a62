"""Writing batches of messages into the store, each in one transaction with the offsets that it brings the store to."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, delete, select

from federation_audit.store import attributing, evidence, joining, judging, lease, rescans
from federation_audit.store.changes import note_all_changed, note_changes
from federation_audit.store.clusters import Clusters
from federation_audit.store.engine import Store
from federation_audit.store.errors import RebuildWanted
from federation_audit.store.facts import FLAGGED_FROM, Facts, Horizon, gather, horizon_at
from federation_audit.store.identities import ActorKey, Identities, MediaKey, NameKey
from federation_audit.store.memory import uncollected
from federation_audit.store.rows import put
from federation_audit.store.standings import Tallies
from federation_audit.store.state import read_state, write_state
from federation_audit.store.sweeping import Sweep, sweep
from federation_audit.store.tables import FORGOTTEN, FROM_MESSAGES, OFFSETS
from schemas.broker import Partition, Received
from schemas.clock import now_ms
from schemas.topics import TOPICS


class Recorder:
    """The one that writes. After any exception it is to be thrown away, and a new one made.

    Raises `LeaseTaken` from whatever writes, when another process has the lease; `RebuildWanted` when somebody asked
    for a rebuild (then `clear`); otherwise `StoreError` of the database.
    """

    def __init__(self, store: Store, *, holder: str, retention_days: int) -> None:
        self._store = store
        self._holder = holder
        self._retention_days = retention_days
        self._sweep: Sweep | None = Sweep()  # one that was under way when we ended is begun anew
        with store.writing() as connection:
            lease.hold(connection, holder)
            state = read_state(connection)
            self._horizon = Horizon(state.horizon, state.failures_horizon)
            self._generation = state.generation
            self._identities = Identities(connection)
            self._tallies = Tallies(connection, self._identities)
            self._clusters = Clusters.load(connection)
            forgotten = connection.execute(select(FORGOTTEN))
            self._forgotten = {ActorKey(row.key_id, row.pseudonym): row.forgotten_at for row in forgotten}
            offsets = connection.execute(select(OFFSETS))
            self._offsets = {(row.topic, row.partition): row.next_offset for row in offsets}

    @property
    def offsets(self) -> dict[Partition, int]:
        """Up to where each partition of `TOPICS` is in the store."""
        specs = {topic.name: topic for topic in TOPICS}
        return {Partition(specs[name], number): at for (name, number), at in self._offsets.items() if name in specs}

    def record(self, records: Sequence[Received], offsets: Mapping[Partition, int], *, lag: int | None = None) -> None:
        """Write what `records` say, and that the store is at `offsets` in their partitions. Without any: go on holding
        the lease. `lag` is how many records the topics have beyond these, -1 where nobody knows; without it, what the
        store says of its recorder stays as it is."""
        with uncollected(), self._writing() as connection:
            if records:
                self._apply(connection, gather(records, self._horizon))
                rescans.record(connection, self._identities, records, self._horizon)
            if lag is not None:
                write_state(connection, lag=lag, recorded_at=now_ms())
            passed = {(partition.topic.name, partition.number): offset for partition, offset in offsets.items()}
            rows = [{"topic": name, "partition": number, "next_offset": at} for (name, number), at in passed.items()]
            put(connection, OFFSETS, rows)
        self._offsets.update(passed)

    def tidy(self, now: int | None = None) -> bool:
        """Move the horizon with the day, and take a small part of what is older out; whether there is more to do."""
        horizon = horizon_at(now_ms() if now is None else now, self._retention_days)
        if horizon.facts > self._horizon.facts or horizon.failures > self._horizon.failures:
            with self._writing() as connection:
                write_state(connection, horizon=horizon.facts, failures_horizon=horizon.failures)
            self._horizon = horizon
            self._sweep = Sweep()
        if self._sweep is None:
            return False
        with self._writing() as connection:
            self._sweep = sweep(connection, self._sweep, self._horizon, self._tallies, self._clusters, self._identities)
        return self._sweep is not None

    def clear(self) -> None:
        """Take everything out that came from messages, offsets too: the first part of a rebuild."""
        with self._store.writing() as connection:
            lease.hold(connection, self._holder)
            for table in (*FROM_MESSAGES, OFFSETS):
                connection.execute(delete(table))
            write_state(connection, generation=read_state(connection).wanted)
            note_all_changed(connection)

    def release(self) -> None:
        """Let others write."""
        with self._store.writing() as connection:
            lease.release(connection, self._holder)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._store.writing() as connection:
            lease.hold(connection, self._holder)
            if read_state(connection).wanted != self._generation:
                raise RebuildWanted("the store is to be made anew from the topics")
            yield connection
            lease.hold(connection, self._holder)  # a batch may have taken longer than the lease lasts

    def _apply(self, connection: Connection, facts: Facts) -> None:
        media, new = self._identities.media(connection, facts.media)
        names_there = self._identities.names(connection, facts.names)
        subjects: dict[MediaKey | NameKey, int] = {
            key: number for found in (media, names_there) for key, number in found.items()
        }
        self._note_forgotten(connection, facts)
        links = {(subjects[subject], subjects[name]): at for (subject, name), at in facts.links.items()}
        changed = joining.write_links(connection, links, set(media.values()))
        change = attributing.plan(connection, self._identities, facts, subjects, self._forgotten)
        names = change.subjects - set(media.values())
        joined = joining.joined_media(connection, names | changed)
        joins = joining.resolve(connection, changed)
        touched = set(media.values()).union(*joined.values(), *joins.values())
        touched |= names  # of origins that go for an actor's sake: media of other batches; names are passed over
        before = self._tallies.read(connection, touched - new)
        joining.write_joins(connection, joined, joins)
        attributing.write(connection, change)
        judging.write_judgements(connection, self._identities, facts, media, new)
        judging.write_marks(connection, self._identities, facts, media, new)
        moved = judging.write_flags(connection, self._identities, facts, media, self._clusters)
        flagged = judging.clusters_behind(connection, touched | moved)
        clusters = {
            cluster for medium, there in flagged.items() for cluster in (there, self._clusters.cluster_of(medium))
        }
        incidents = evidence.count_incidents(connection, clusters)
        judging.move(connection, moved, self._clusters)
        after = self._tallies.read(connection, touched)
        self._tallies.write(connection, before, after)
        current = {medium: self._tallies.current(connection, standing) for medium, standing in after.items()}
        judging.write_now(
            connection, {medium: each is not None and each[0] >= FLAGGED_FROM for medium, each in current.items()}
        )
        evidence.refresh(connection, flagged.keys() & touched)
        evidence.write_incidents(connection, incidents, evidence.count_incidents(connection, clusters))
        if clusters:
            note_changes(connection, clusters)

    def _note_forgotten(self, connection: Connection, facts: Facts) -> None:
        for key, at in facts.forgotten.items():
            self._forgotten[key] = max(at, self._forgotten.get(key, -1))
        rows = [key._asdict() | {"forgotten_at": self._forgotten[key]} for key in facts.forgotten]
        put(connection, FORGOTTEN, rows)
