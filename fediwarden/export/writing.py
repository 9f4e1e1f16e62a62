"""From topics to files."""

from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

from fediwarden.export.kinds import OVERRIDE_ROWS, Kind
from fediwarden.export.lines import first_line, line_of
from fediwarden.export.parquet import ParquetWriter
from gateway.overrides.memory import Overrides
from schemas.broker import BrokerSettings, Received, check_topics, read_history
from schemas.clock import now_ms
from schemas.messages import EVERY_TENANT, Message, Verdict

CLIENT_ID = "fediwarden-export"

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be exported: published from `since_ms` on and before `until_ms`, of `tenants` (none: of all)."""

    kind: Kind
    since_ms: int = 0
    until_ms: int | None = None
    tenants: tuple[str, ...] = ()

    def takes(self, received: Received) -> bool:
        """Whether a record is asked for. By its own time: what was imported stands after what is newer."""
        at = received.timestamp_ms
        if at < self.since_ms or (self.until_ms is not None and at >= self.until_ms):
            return False
        return isinstance(received.message, self.kind.messages) and _is_of(received.message, self.tenants)


@dataclass(slots=True)
class Exported:
    """What came of it: messages written, and records that cannot be read, which are left out."""

    rows: int = 0
    unreadable: int = 0


async def export_lines(broker: BrokerSettings, asked: Asked, file: IO[bytes], *, on_progress: OnProgress) -> Exported:
    """Write what is asked for to `file` as JSON lines. Raises a `BrokerError`, or OSError."""
    kind = asked.kind
    file.write(
        first_line(
            kind, exported_at=now_ms(), since=asked.since_ms, until=asked.until_ms, tenants=sorted(asked.tenants)
        )
    )
    if kind is OVERRIDE_ROWS:
        return await _export_overrides(broker, asked, file, on_progress)

    def write(received: Received, message: Message) -> None:
        file.write(line_of(kind, message, received.timestamp_ms))

    return await _export(broker, asked, write, on_progress)


async def export_parquet(broker: BrokerSettings, asked: Asked, file: IO[bytes], *, on_progress: OnProgress) -> Exported:
    """Write the verdicts asked for to `file`. Raises `ParquetMissing`, a `BrokerError`, or OSError."""
    with ExitStack() as open_:
        writer = open_.enter_context(ParquetWriter(file))

        def write(received: Received, message: Message) -> None:
            assert isinstance(message, Verdict), "the only kind that is written so"
            writer.write(message, received.timestamp_ms)

        return await _export(broker, asked, write, on_progress)


async def _export(
    broker: BrokerSettings, asked: Asked, write: Callable[[Received, Message], None], on_progress: OnProgress
) -> Exported:
    exported = Exported()

    def take(received: Received) -> None:
        if received.fault is not None:
            exported.unreadable += 1
        elif asked.takes(received):
            assert received.message is not None
            write(received, received.message)
            exported.rows += 1

    await _read(broker, asked, take, on_progress)
    return exported


async def _export_overrides(broker: BrokerSettings, asked: Asked, file: IO[bytes], on_progress: OnProgress) -> Exported:
    """Those that stand, whenever they were set: not what was taken back, or replaced."""
    exported, standing = Exported(), Overrides()

    def take(received: Received) -> None:
        exported.unreadable += received.fault is not None
        standing.observe(received)

    await _read(broker, Asked(asked.kind), take, on_progress)
    for each in sorted(standing.standing(), key=lambda each: (each.set_at, each.override_id)):
        if _is_of(each, asked.tenants):
            file.write(line_of(asked.kind, each, each.set_at))
            exported.rows += 1
    return exported


async def _read(
    broker: BrokerSettings, asked: Asked, take: Callable[[Received], None], on_progress: OnProgress
) -> None:
    topic = asked.kind.topic
    await check_topics(broker, (topic,))
    await read_history(
        broker,
        (topic,),
        since_ms=asked.since_ms,
        on_record=take,
        on_progress=lambda passed, of: on_progress(topic.name, passed, of),
        client_id=CLIENT_ID,
    )


def _is_of(message: Message, tenants: Collection[str]) -> bool:
    """Whether it speaks of one of `tenants`, or of everybody (as who is to be forgotten does)."""
    tenant = getattr(message, "tenant", EVERY_TENANT)
    return not tenants or tenant == EVERY_TENANT or tenant in tenants
