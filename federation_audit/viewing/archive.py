"""The frames of one medium, from the archive in Kafka: found, opened and handed on in memory."""

import asyncio
import threading
from typing import NamedTuple

import structlog

from federation_audit.viewing.media import Medium
from schemas.broker import BrokerError, BrokerSettings, Span, find_newest
from schemas.clock import now_ms
from schemas.keyring import FramesUndecryptable, Keyring
from schemas.messages import ImageSubmitted
from schemas.topics import HOUR_MS, IMAGES_ARCHIVE, MINUTE_MS

log = structlog.get_logger("federation_audit.viewing")

# The enforcer takes an image out by a tombstone, and compaction takes the record within the hour (schemas.topics).
# What was published lately is therefore read first: a tombstone there goes before any record that still stands.
_LATELY_MS = 2 * HOUR_MS
# The scanner publishes verdict and frames together; either may wait for Kafka.
_BEFORE_MS = MINUTE_MS
_AFTER_MS = 10 * MINUTE_MS
_TIMES_MOST = 6
_WITHIN_S = 20.0
_MOST_BYTES = 128 << 20
_AT_ONCE = threading.BoundedSemaphore(2)


class NoFrames(Exception):
    """There is nothing to see; the message says why, and what can be done."""


class Frames(NamedTuple):
    """The JPEGs of a medium, and the scan that they were archived by."""

    jpegs: list[bytes]
    scan_id: str


def open_frames(broker: BrokerSettings, keyring: Keyring, medium: Medium) -> Frames:
    """The frames of `medium`. Raises `NoFrames`. Takes seconds: to be called in a thread, without an event loop.

    The archive keeps one record for a hash, whichever tenant's: the bytes are the same.
    """
    now = now_ms()
    times = medium.judged_at[:_TIMES_MOST]
    spans = [Span(now - _LATELY_MS), *(Span(at - _BEFORE_MS, at + _AFTER_MS) for at in times)]
    with _AT_ONCE:
        try:
            record = asyncio.run(
                find_newest(
                    broker,
                    IMAGES_ARCHIVE,
                    key=medium.sha256,
                    spans=spans,
                    within_s=_WITHIN_S,
                    most_bytes=_MOST_BYTES,
                    client_id="fediwarden-viewing",
                )
            )
        except BrokerError as error:
            log.warning("the archive could not be read", error=str(error))
            raise NoFrames(
                "Kafka, which keeps the frames, did not answer in time. Nothing was shown. Try again later; the log"
                " says more."
            ) from error
    if record is None:
        days = IMAGES_ARCHIVE.retention_ms // (24 * HOUR_MS)
        raise NoFrames(
            f"The archive has no frames of it (any more). They are kept for {days} days at most, less on a busy server,"
            " and not at all with scanner.archive off."
        )
    if record.message is None and record.fault is None:
        raise NoFrames("Its frames were erased: it was rejected, or denied by an override, since it was judged.")
    message = record.message
    if not isinstance(message, ImageSubmitted) or message.sha256 != medium.sha256:
        raise NoFrames("What stands in the archive under its hash is no image of ours. Nothing was shown.")
    try:
        jpegs = keyring.open(message.sealed, sha256=message.sha256, tenant=message.tenant)
    except FramesUndecryptable as error:
        raise NoFrames(f"Its frames cannot be opened: {error}.") from error
    if not jpegs:
        raise NoFrames("The archive holds no frame of it.")
    return Frames(jpegs, message.scan_id)
