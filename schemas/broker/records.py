"""A record as our consumers hand it on."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka import ConsumerRecord

from schemas.codec import IMPORTED_HEADER, NO_VIEWS, CodecError, Views, decode, schema_header
from schemas.messages import Message
from schemas.telemetry import tracing
from schemas.topics import TopicSpec


@dataclass(frozen=True, slots=True)
class Received:
    """One record. A tombstone has neither `message` nor `fault`; a poison record has a `fault`.

    `timestamp_ms` is when it was published; `size` is the bytes of its value; `epoch` names the assignment of the
    partition that it was handed out under. `imported` says that it is history, brought from elsewhere: nobody acts on
    it. `trace` names the step of an image's trace that published it (`schemas.telemetry.tracing`); "" for none.
    """

    topic: TopicSpec
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    message: Message | None
    fault: CodecError | None
    size: int
    epoch: int = 0
    imported: bool = False
    trace: str = ""


def read_record(
    record: ConsumerRecord, topics: Mapping[str, TopicSpec], epoch: int = 0, views: Views = NO_VIEWS
) -> Received:
    """What `record` holds, with a fault instead of a message where it cannot be read."""
    message: Message | None = None
    fault: CodecError | None = None
    if record.value is not None:
        try:
            message = decode(schema_header(record.headers), record.value, views)
        except CodecError as error:
            fault = error
    return Received(
        topic=topics[record.topic],
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key,
        message=message,
        fault=fault,
        size=len(record.value) if record.value is not None else 0,
        epoch=epoch,
        imported=any(name == IMPORTED_HEADER for name, _ in record.headers),
        trace=_trace_in(record),
    )


def _trace_in(record: ConsumerRecord) -> str:
    for name, value in record.headers:
        if name == tracing.HEADER and value is not None:
            text = value.decode("ascii", "replace")
            return text if tracing.is_traceparent(text) else ""
    return ""
