"""Looking into Kafka's files from outside, the way somebody who holds the disk would.

Log files hold record batches, and those (magic 2) records: ``length, attributes (1 byte), timestamp delta, offset
delta, key length, key, value length, value, headers``, where lengths and deltas are zigzag varints and the length -1
stands for none (https://kafka.apache.org/documentation/#record). Our producers do not compress: a key stands in the
file as it is. Files are read in pieces, not mapped into memory: Kafka may cut one short at any time.
"""

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fediwarden.kafka.errors import KafkaError

_Result = TypeVar("_Result")

_CHUNK_BYTES = 8 << 20
_VARINT_MOST_BYTES = 5
_TRIES = 5

_PARTITION = re.compile(r"(?P<topic>.+)-(?P<number>\d+)(\.[0-9a-f]+-(delete|future|stray))?")
"""The name of a partition's folder, also of one that is being deleted, moved, or that Kafka does not know any more."""


class FilesUnreadable(KafkaError):
    """Files that must be looked into cannot be read, or do not stand still: nothing can be said about them."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record with a value in the log file `file`, whose key begins at byte `at`. `value` is cut where the file is."""

    topic: str
    partition: int
    file: Path
    at: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Hit:
    """`needle` stands in `file` at byte `at`."""

    file: Path
    at: int
    needle: bytes


def is_there(folder: Path) -> bool:
    """Whether `folder` exists. Raises `FilesUnreadable` where nobody lets us see that."""
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(error) from error
    return True


def list_partitions(kafka_directory: Path, topics: Collection[str]) -> dict[Path, tuple[str, int]]:
    """The folders of the partitions of `topics` (full names) on every node, with topic and number.

    Raises `FilesUnreadable`.
    """
    return _read_steadily(
        lambda: {
            folder: (match["topic"], int(match["number"]))
            for node in kafka_directory.iterdir()
            if node.name.startswith("node-")
            for folder in (node / "data").iterdir()
            if (match := _PARTITION.fullmatch(folder.name)) and match["topic"] in topics
        }
    )


def find_records(partitions: Mapping[Path, tuple[str, int]], key: bytes) -> list[StoredRecord]:
    """Every record with `key` and a value in any file of `partitions`, files about to be deleted included.

    Raises `FilesUnreadable`.
    """

    def find() -> list[StoredRecord]:
        return [
            StoredRecord(*partitions[folder], hit.file, hit.at, value)
            for folder in partitions
            for hit in _search_all(folder, [key])
            if (value := _read_value(hit.file, hit.at, key)) is not None
        ]

    return _read_steadily(find)


def find_bytes(folder: Path, needles: Sequence[bytes]) -> list[Hit]:
    """Every place of `needles` in the files below `folder`. Raises `FilesUnreadable`."""
    return _read_steadily(lambda: list(_search_all(folder, needles)))


def _read_steadily(read: Callable[[], _Result]) -> _Result:
    """What `read` returns. Kafka renames files before it deletes them: when one vanishes, all is looked at again."""
    vanished = ""
    for _ in range(_TRIES):
        try:
            return read()
        except FileNotFoundError as error:
            vanished = error.filename
        except OSError as error:
            raise _unreadable(error) from error
    raise FilesUnreadable(f"files vanish faster than they can be read, such as {vanished}; try again")


def _unreadable(error: OSError) -> FilesUnreadable:
    return FilesUnreadable(f"{error.filename} cannot be read: {error.strerror}")


def _search_all(folder: Path, needles: Sequence[bytes]) -> Iterator[Hit]:
    for where, _, names in os.walk(folder, onerror=_raise):
        for name in sorted(names):
            file = Path(where, name)
            if stat.S_ISREG(file.lstat().st_mode):
                yield from _search(file, needles)


def _raise(error: OSError) -> None:
    raise error  # what cannot be looked into must not pass for empty


def _search(file: Path, needles: Sequence[bytes]) -> Iterator[Hit]:
    overlap = max(map(len, needles), default=1) - 1
    with file.open("rb") as stream:
        start, window = 0, b""
        while chunk := stream.read(_CHUNK_BYTES):
            window += chunk
            for needle in needles:
                at = window.find(needle)
                while at >= 0:
                    # What ends within the overlap was found in the window before.
                    if at + len(needle) > len(window) - len(chunk):
                        yield Hit(file, start + at, needle)
                    at = window.find(needle, at + 1)
            kept = window[-overlap:] if overlap else b""
            start += len(window) - len(kept)
            window = kept


def _read_value(file: Path, at: int, key: bytes) -> bytes | None:
    """The value of the record whose key stands at byte `at`; None where that is no record's key, or a tombstone's."""
    length = _zigzag(len(key))
    with file.open("rb") as stream:
        stream.seek(max(0, at - len(length)))
        if stream.read(min(at, len(length))) != length:
            return None
        stream.seek(at + len(key))
        value_length, used = _parse_varint(stream.read(_VARINT_MOST_BYTES))
        if value_length < 0:
            return None
        stream.seek(at + len(key) + used)
        return stream.read(value_length)


def _zigzag(number: int) -> bytes:
    """A length of 0 or more as Kafka writes it."""
    left, written = number << 1, bytearray()
    while left > 0x7F:
        written.append(left & 0x7F | 0x80)
        left >>= 7
    written.append(left)
    return bytes(written)


def _parse_varint(data: bytes) -> tuple[int, int]:
    """The zigzag varint that `data` begins with, and its bytes; (-1, 0) where there is none."""
    number = 0
    for index, byte in enumerate(data):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), index + 1
    return -1, 0
