"""Is an image's evidence gone? Asked of the disk where Kafka is ours, of the topics where it is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fediwarden.kafka.errors import KafkaError
from fediwarden.kafka.segments import find_bytes, find_records, is_there, list_partitions
from schemas.broker import BrokerSettings, Received, read_history
from schemas.codec import CodecError, decode
from schemas.messages import ImageSubmitted
from schemas.topics import IMAGES, IMAGES_ARCHIVE, IMAGES_BACKLOG

TOPICS_WITH_FRAMES = (IMAGES, IMAGES_BACKLOG, IMAGES_ARCHIVE)
CIPHERTEXT_BYTES = 64
"""So much of a ciphertext's beginning is looked for. It is random: it stands nowhere by chance."""

MIN_CIPHERTEXT_BYTES = 16

SPOOLED = ("frames", "refused")
"""The folders of a spool's slot that hold frames; the journal of answers beside them holds hashes only."""


class NothingToSearch(KafkaError):
    """There is neither data of an embedded Kafka nor a spool where the settings say."""


@dataclass(frozen=True, slots=True)
class Found:
    """One place that still holds frames.

    `what` is "record" (the image's record, with its value), "ciphertext" (its bytes, wherever they are) or "spool".
    `where` is a file and `at` a byte in it, or a topic's name with the offset of a record where Kafka is not ours.
    """

    what: str
    where: str
    at: int
    topic: str = ""
    partition: int | None = None


def search_disk(
    data_dir: Path, prefix: str, sha256: bytes, ciphertexts: Sequence[bytes] = (), *, spool_dir: Path
) -> list[Found]:
    """Look for the frames of the image `sha256` in every file that could hold them.

    Records are looked for in the log files of the topics that carry frames, of every node of the embedded Kafka in
    `data_dir`; then the beginnings of the ciphertexts found there, and `ciphertexts`, in every file of `data_dir`; the
    image itself in `spool_dir` (see `search_spool`), also where Kafka has no topics yet. Reads all of it: seconds for
    some GB. Raises `NothingToSearch` or `fediwarden.kafka.segments.FilesUnreadable`.
    """
    names = {topic.full_name(prefix) for topic in TOPICS_WITH_FRAMES}
    kafka = data_dir / "kafka"
    partitions = list_partitions(kafka, names) if is_there(kafka) else {}
    if not partitions and not is_there(spool_dir):
        raise NothingToSearch(
            f"{kafka} holds no topics {prefix}images*, and there is no spool {spool_dir};"
            " name the right folder with --data-dir"
        )
    records = find_records(partitions, sha256)
    found = [Found("record", str(record.file), record.at, record.topic, record.partition) for record in records]
    needles = {*ciphertexts, *(start for record in records if (start := _ciphertext_start(record.value)))}
    if needles:
        found += [Found("ciphertext", str(hit.file), hit.at) for hit in find_bytes(data_dir, sorted(needles))]
    return found + search_spool(spool_dir, sha256)


def search_spool(spool_dir: Path, sha256: bytes) -> list[Found]:
    """Look for the image `sha256` among the frames that gateways on this machine keep on disk while Kafka is away.

    A segment's bytes stay until all its entries have been published: what is found may be in Kafka already.
    Raises `fediwarden.kafka.segments.FilesUnreadable`.
    """
    hits = find_bytes(spool_dir, [sha256]) if is_there(spool_dir) else []
    return [Found("spool", str(hit.file), hit.at) for hit in hits if hit.file.parent.name in SPOOLED]


async def search_topics(broker: BrokerSettings, sha256: bytes) -> list[Found]:
    """Look for the frames of the image `sha256` among all that can be read from the topics that carry frames.

    What the brokers deleted and still have on disk is not seen. Raises `BrokerUnavailable` or `BrokerRefused`.
    """
    found: list[Found] = []

    def note(received: Received) -> None:
        if received.key == sha256 and (received.message is not None or received.fault is not None):
            name = received.topic.full_name(broker.topic_prefix)
            found.append(Found("record", name, received.offset, name, received.partition))

    await read_history(broker, TOPICS_WITH_FRAMES, since_ms=0, on_record=note, client_id="fediwarden-erasure-check")
    return found


def _ciphertext_start(value: bytes) -> bytes | None:
    """The beginning of the ciphertext in a record's value; None where the value is damaged."""
    try:
        message = decode(f"{ImageSubmitted.SCHEMA}/{ImageSubmitted.VERSION}", value)
    except CodecError:
        return None
    assert isinstance(message, ImageSubmitted)
    return message.sealed.ciphertext[:CIPHERTEXT_BYTES]
