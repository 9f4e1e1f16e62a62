"""From files back to topics: all of a file or nothing, and nothing twice."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fediwarden.export.errors import ExportError, FileUnusable
from fediwarden.export.kinds import OVERRIDE_ROWS, Kind
from fediwarden.export.lines import Entry, read_entries, read_kind
from gateway.overrides.memory import Overrides
from schemas.broker import BrokerSettings, Producer, Received, check_topics, read_history
from schemas.clock import now_ms
from schemas.codec import encode, schema_of
from schemas.messages import Message, OverrideSet

CLIENT_ID = "fediwarden-import"

OnProgress = Callable[[str, int, int], None]

_DIGEST_BYTES: Final = 16
_BATCH: Final = 500
_GIVE_UP_S: Final = 60.0

_Digests = NDArray[np.bytes_]


@dataclass(slots=True)
class Imported:
    """What came of an import: `lines` in the file, `there` already in the topic, `published` (or to be, when dry).

    `expired` are older than the topic keeps anything: Kafka deletes them with the segments that they are in.
    """

    kind: Kind
    lines: int = 0
    there: int = 0
    published: int = 0
    expired: int = 0


async def import_file(
    broker: BrokerSettings,
    path: Path,
    *,
    dry_run: bool = False,
    on_progress: OnProgress = lambda what, passed, of: None,
) -> Imported:
    """Publish what the export `path` holds and the topic does not, with its times; `dry_run` only counts it.

    The whole file is read and checked first. Verdicts and origins are marked as imported, so that they are known and
    counted, and nobody acts on them; overrides are in force from then on, and one that was set later stays. What an
    interrupted import has published, the next finds there. Raises an `ExportError` or a `BrokerError`.
    """
    try:
        with path.open("rb") as file:
            if not file.seekable():
                raise ExportError(f"{path}: the file is read twice, and this cannot be: save it to a disk first")
            return await _import(broker, path, file, dry_run, on_progress)
    except OSError as error:
        raise FileUnusable("read", path, error) from error


async def _import(
    broker: BrokerSettings, path: Path, file: IO[bytes], dry_run: bool, on_progress: OnProgress
) -> Imported:
    kind = read_kind(path, file)
    checked = _check(read_entries(path, file, kind))
    imported = Imported(kind, lines=checked.lines)
    await check_topics(broker, (kind.topic,))
    known: _Known = _Standing() if kind is OVERRIDE_ROWS else _Told(checked.digests)
    await read_history(
        broker,
        (kind.topic,),
        since_ms=0 if kind is OVERRIDE_ROWS else checked.oldest_ms,
        on_record=known.take,
        on_progress=lambda passed, of: on_progress(kind.topic.name, passed, of),
        client_id=CLIENT_ID,
    )
    file.seek(0)
    read_kind(path, file)
    entries = read_entries(path, file, kind)
    if dry_run:
        while batch := list(islice(entries, _BATCH)):
            _select(batch, known, imported)
        return imported
    async with Producer(broker, client_id=CLIENT_ID) as producer:
        while batch := list(islice(entries, _BATCH)):
            await _publish(producer, kind, _select(batch, known, imported))
            on_progress(path.name, imported.there + imported.published, imported.lines)
    return imported


@dataclass(slots=True)
class _Checked:
    """What a file that is valid holds: how much, from when on, and digests, 16 bytes a line."""

    lines: int = 0
    oldest_ms: int = 0
    digests: bytearray = field(default_factory=bytearray)


def _check(entries: Iterator[Entry]) -> _Checked:
    checked, now = _Checked(), now_ms()
    oldest: int | None = None
    for entry in entries:
        checked.lines += 1
        checked.digests += _digest(entry.encoded)
        # What is of the future is published as of now, and was then, by an earlier import.
        at = entry.published_at if entry.published_at <= now else 0
        oldest = at if oldest is None else min(oldest, at)
    checked.oldest_ms = oldest or 0
    return checked


class _Known(Protocol):
    """What stands in the topic."""

    def take(self, received: Received) -> None:
        """Take in one record."""

    def new(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those of `entries` that are not there; from now on they are."""


class _Told:
    """Messages by the digest of all that they say: only those that are in the file are of interest."""

    def __init__(self, digests: bytearray) -> None:
        self._all: _Digests = np.unique(np.frombuffer(digests, dtype=f"S{_DIGEST_BYTES}"))
        self._there = np.zeros(len(self._all), dtype=bool)
        self._waiting: list[bytes] = []

    def take(self, received: Received) -> None:
        """Take in one record; one that cannot be read is none of ours."""
        if received.message is not None:
            self._waiting.append(_digest(_encoded(received.message)))
            if len(self._waiting) >= _BATCH:
                self._settle()

    def new(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those that are not there."""
        self._settle()
        places, found = self._find([_digest(entry.encoded) for entry in entries])
        if not found.all():
            raise ExportError("the file was changed while it was read: import it again")
        news = []
        for entry, place in zip(entries, places.tolist(), strict=True):
            if not self._there[place]:
                self._there[place] = True
                news.append(entry)
        return news

    def _settle(self) -> None:
        if self._waiting:
            places, found = self._find(self._waiting)
            self._there[places[found]] = True
            self._waiting.clear()

    def _find(self, digests: Sequence[bytes]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        if not len(self._all):
            return np.zeros(len(digests), np.intp), np.zeros(len(digests), np.bool_)
        asked = np.array(digests, dtype=f"S{_DIGEST_BYTES}")
        places = np.minimum(np.searchsorted(self._all, asked), len(self._all) - 1)
        return places, self._all[places] == asked


class _Standing:
    """Overrides: the one that was set last stands."""

    def __init__(self) -> None:
        self._set_at: dict[str, int] = {}
        self._overrides = Overrides()

    def take(self, received: Received) -> None:
        """Take in one record."""
        self._overrides.observe(received)

    def new(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those that were set after what stands on the same hash for the same tenant."""
        news = []
        for entry in entries:
            override = entry.message
            assert isinstance(override, OverrideSet)
            standing = self._overrides.get(override.override_id)
            set_at = max(-1 if standing is None else standing.set_at, self._set_at.get(override.override_id, -1))
            if override.set_at > set_at:
                self._set_at[override.override_id] = override.set_at
                news.append(entry)
        return news


def _select(batch: Sequence[Entry], known: _Known, imported: Imported) -> list[Entry]:
    news = known.new(batch)
    imported.there += len(batch) - len(news)
    imported.published += len(news)
    if not imported.kind.topic.is_state:
        oldest = now_ms() - imported.kind.topic.retention_ms
        imported.expired += sum(entry.published_at < oldest for entry in news)
    return news


async def _publish(producer: Producer, kind: Kind, entries: Sequence[Entry]) -> None:
    """Publish `entries`, many at a time, but those of one key one after the other, in their order."""
    waiting: dict[bytes, Entry] = {}
    for entry in entries:
        key = kind.key(entry.message)
        if key in waiting:
            await _publish_together(producer, kind, waiting)
            waiting.clear()
        waiting[key] = entry
    await _publish_together(producer, kind, waiting)


async def _publish_together(producer: Producer, kind: Kind, entries: dict[bytes, Entry]) -> None:
    now, is_state = now_ms(), kind.topic.is_state
    await asyncio.gather(
        *(
            producer.publish(
                kind.topic,
                entry.message,
                key=key,
                give_up_after=_GIVE_UP_S,
                # Kafka refuses what is of the future. An override is of now, for it is in force from now on.
                timestamp_ms=None if is_state else min(entry.published_at, now),
                imported=not is_state,
            )
            for key, entry in entries.items()
        )
    )


def _encoded(message: Message) -> bytes:
    return schema_of(message).encode("ascii") + b"\n" + encode(message)


def _digest(encoded: bytes) -> bytes:
    return hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).digest()
