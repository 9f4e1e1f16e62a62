"""A bounded log on disk that forgets entries one by one, and survives a crash at any byte.

Files are named by the first sequence number that they may hold (20 digits, ``.log``) and hold entries, one after the
other, nothing else. An entry, little-endian::

    offset  bytes
    0       3      b"FW" and the format's version, 1
    3       1      state: 0x00 pending, 0xA5 released (overwritten in place; anything else counts as pending)
    4       4      length of the payload
    8       8      sequence number
    16      8      time written, milliseconds since the epoch
    24      4      CRC-32 (zlib) of bytes 0-2 and 4-23
    28      4      CRC-32 of the payload, continued from the one before
    32             the payload

The head has a checksum of its own, so that a damaged payload can be stepped over; behind a damaged head the next
whole one is looked for. Overwriting one byte of a block that is there already can neither tear nor find the disk full,
which is why an entry is released in place.
"""

import contextlib
import errno
import os
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import structlog

from gateway.spool.errors import EntryDamaged, SpoolError, SpoolFailed, SpoolFull, SpoolUnusable
from schemas.clock import now_ms

log = structlog.get_logger("gateway.spool")

SEGMENT_BYTES = 8 << 20

_MAGIC = b"FW\x01"
_PENDING = 0x00
_RELEASED = 0xA5
_HEAD = struct.Struct("<3sBIQQII")
_CHECKED = struct.Struct("<3sIQQ")
_STATE_AT = 3
_SEGMENTS_MIN = 8  # of a full log: only whole segments are deleted
_LOOK_BYTES = 1 << 16
_BLOCK_BYTES = 4096
_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_PASSING = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))


class Entry(NamedTuple):
    """One entry: its number, when it was written (milliseconds since the epoch), its bytes."""

    sequence: int
    at_ms: int
    payload: bytes


@dataclass(slots=True, eq=False)
class _Segment:
    path: Path
    size: int = 0
    live: int = 0
    unreadable: bool = False
    """The disk refused to give some of it back: it is neither cut nor deleted, a later start may read it."""


class _Place(NamedTuple):
    segment: _Segment
    offset: int
    length: int
    at_ms: int


class _Head(NamedTuple):
    offset: int
    released: bool
    length: int
    sequence: int
    at_ms: int
    check: int
    payload_check: int

    @property
    def end(self) -> int:
        return self.offset + _HEAD.size + self.length


class SegmentLog:
    """An append-only log in `folder`, at most `max_bytes` on disk, with entries that are released in any order.

    Blocking; for one thread at a time (`count`, `size`, `oldest_at_ms` and `damaged` may be read from any). With
    `sync`, what `append` returned for survives a power failure; without, the death of the process. Released entries
    do not come back after the death of the process; after a power failure they may. Payloads stay on disk: memory
    holds some 300 bytes an entry.

    A segment is begun when the one before holds `segment_bytes` (or an eighth of `max_bytes`, where that is less) and
    deleted when all its entries are released; until then the released ones count towards `max_bytes`.
    """

    def __init__(self, folder: Path, *, max_bytes: int, segment_bytes: int = SEGMENT_BYTES, sync: bool) -> None:
        self._folder = folder
        self._segment_bytes = min(segment_bytes, max_bytes // _SEGMENTS_MIN)
        self._sync = sync
        self._places: OrderedDict[int, _Place] = OrderedDict()
        self._next = 0
        # The newest segment is kept, empty if need be: its name is what remembers the numbers given out.
        self._newest: _Segment | None = None
        self._fd: int | None = None  # of the newest, while it may be appended to
        self.max_bytes = max_bytes
        self.size = 0
        self.damaged = 0
        self.oldest_at_ms: int | None = None

    @property
    def count(self) -> int:
        """Entries that are not released."""
        return len(self._places)

    def open(self) -> None:
        """Read what is there; an unfinished end is cut off. Raises `SpoolUnusable`."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._sync:
                sync_folder(self._folder.parent)
            paths = sorted(path for path in self._folder.glob("*.log") if path.stem.isdecimal())
            segments = [self._recover(path, newest=path == paths[-1]) for path in paths]
        except OSError as error:
            raise SpoolUnusable(self._folder, error) from error
        for segment in segments:
            if not segment.live:
                self._reclaim(segment)
        self._note_oldest()

    def close(self) -> None:
        """Close the files. What is pending stays for the next `open`."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def append(self, payload: bytes) -> int:
        """Write one entry; its sequence number, higher than every one before, across restarts.

        Raises `SpoolFull` or `SpoolFailed`; the entry is not there then.
        """
        return self.append_many((payload,))[0]

    def append_many(self, payloads: Sequence[bytes]) -> list[int]:
        """Write several entries at the price of one fsync: all of them or, where it raises, none. As `append`."""
        if not payloads:
            return []
        total = sum(_HEAD.size + len(payload) for payload in payloads)
        if self.size + total > self.max_bytes:
            raise SpoolFull(f"{self._folder} holds {self.size} of {self.max_bytes} bytes: no room for {total} more")
        segment, fd = self._segment_for(total)
        at_ms, end = now_ms(), segment.size
        places: list[tuple[int, _Place]] = []
        try:
            for payload in payloads:
                sequence, self._next = self._next, self._next + 1
                _write(fd, _make_head(payload, sequence, at_ms) + payload, end)
                places.append((sequence, _Place(segment, end, len(payload), at_ms)))
                end += _HEAD.size + len(payload)
            if self._sync:
                os.fdatasync(fd)
        except OSError as error:
            self._take_back(segment, fd, error)
            raise _failure(segment.path, error) from error
        segment.size = end
        segment.live += len(places)
        self.size += total
        self._places.update(places)
        self._note_oldest()
        return [sequence for sequence, _ in places]

    def release(self, sequence: int) -> None:
        """Forget an entry. Releasing twice, or what was never there, changes nothing.

        Raises nothing: where the disk refuses the mark, that is logged, and the entry may come back after a restart.
        """
        place = self._places.get(sequence)
        if place is None:
            return
        try:
            _mark_released(place)
        except OSError as error:
            log.warning("a spool entry may come back", file=str(place.segment.path), error=str(error))
        self._forget(sequence)

    def read(self, sequence: int) -> Entry:
        """One pending entry. Raises KeyError (not pending), `EntryDamaged` (given up now), `SpoolFailed`."""
        place = self._places[sequence]
        try:
            data = _read(place)
        except OSError as error:
            if error.errno in _PASSING:
                raise SpoolFailed(f"{place.segment.path} cannot be read now: {error}") from error
            place.segment.unreadable |= error.errno == errno.EIO
            data = b""  # the disk does not give it back, or someone removed the file
        head = _parse(data[: _HEAD.size], place.offset)
        payload = data[_HEAD.size :]
        if head is None or head.sequence != sequence or zlib.crc32(payload, head.check) != head.payload_check:
            self._note_damage(place.segment.path, place.offset, _HEAD.size + place.length)
            self._forget(sequence)
            raise EntryDamaged(f"{place.segment.path}: the entry at {place.offset} is damaged")
        return Entry(sequence, place.at_ms, payload)

    def next_after(self, sequence: int) -> Entry | None:
        """The first pending entry with a higher number, read from disk; damaged ones are passed over (and logged).

        Raises `SpoolFailed` when it cannot be read now.
        """
        following = max(sequence + 1, next(iter(self._places), self._next))
        while following < self._next:
            if following in self._places:
                with contextlib.suppress(EntryDamaged):
                    return self.read(following)
            following += 1
        return None

    def pending(self) -> Iterator[Entry]:
        """Every pending entry in order, each read when it is asked for; the log may change meanwhile."""
        entry = self.next_after(-1)
        while entry is not None:
            yield entry
            entry = self.next_after(entry.sequence)

    def _segment_for(self, total: int) -> tuple[_Segment, int]:
        newest, fd = self._newest, self._fd
        if newest is not None and fd is not None and (not newest.size or newest.size + total <= self._segment_bytes):
            return newest, fd
        return self._begin_segment()

    def _begin_segment(self) -> tuple[_Segment, int]:
        path = self._folder / f"{self._next:020d}.log"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if self._sync:
                    sync_folder(self._folder)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            raise _failure(path, error) from error
        self.close()
        before, self._newest, self._fd = self._newest, _Segment(path), fd
        if before is not None and not before.live and before.path != path:
            self._delete(before)
        return self._newest, fd

    def _take_back(self, segment: _Segment, fd: int, error: OSError) -> None:
        """Undo a failed append. Where the disk did worse than be full, the segment is not appended to again."""
        try:
            os.ftruncate(fd, segment.size)
        except OSError:
            self.close()
        if error.errno not in _NO_ROOM:
            self.close()

    def _forget(self, sequence: int) -> None:
        segment = self._places.pop(sequence).segment
        segment.live -= 1
        if not segment.live:
            self._reclaim(segment)
        self._note_oldest()

    def _reclaim(self, segment: _Segment) -> None:
        """Delete a segment that has nothing pending; the newest only once there is a newer one."""
        if segment is not self._newest:
            self._delete(segment)
        elif segment.size:
            with contextlib.suppress(SpoolError):  # it goes with the next segment that can be begun
                self._begin_segment()

    def _delete(self, segment: _Segment) -> None:
        if segment.unreadable:
            return
        self.size -= segment.size
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:  # its entries are all marked: the next start tries again
            log.warning("a spool file cannot be deleted", file=str(segment.path), error=str(error))

    def _recover(self, path: Path, *, newest: bool) -> _Segment:
        """Index one file. Only in the newest can a crash have left payloads unwritten: there all are checked."""
        segment = _Segment(path)
        self._next = max(self._next, int(path.stem))
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            segment.size = os.fstat(fd).st_size
            end = 0
            for head in self._heads(fd, segment):
                self._next = max(self._next, head.sequence + 1)
                if newest and not head.released and not _is_whole(fd, segment, head):
                    continue
                if head.offset > end:
                    self._note_damage(path, end, head.offset - end)
                end = head.end
                if not head.released:
                    self._places[head.sequence] = _Place(segment, head.offset, head.length, head.at_ms)
                    segment.live += 1
            if end < segment.size:
                # Those that cannot be read had numbers, too.
                self._next = max(self._next, int(path.stem) + segment.size // _HEAD.size + 1)
            if end < segment.size and newest and not segment.unreadable:
                log.warning("the unfinished end of a spool file is cut off", file=str(path), offset=end)
                os.ftruncate(fd, end)
                segment.size = end
            elif end < segment.size:
                self._note_damage(path, end, segment.size - end)
        finally:
            os.close(fd)
        self.size += segment.size
        self._newest = segment
        return segment

    def _heads(self, fd: int, segment: _Segment) -> Iterator[_Head]:
        """Every entry's head, in order, whose payload lies wholly within the file."""
        at, floor = 0, int(segment.path.stem)
        while at < segment.size:
            head = _parse(_pread(fd, segment, _HEAD.size, at), at)
            if head is None or head.sequence < floor:
                at = _find_magic(fd, segment, at + 1)
            elif head.end > segment.size:
                return
            else:
                yield head
                at, floor = head.end, head.sequence + 1

    def _note_damage(self, path: Path, offset: int, length: int) -> None:
        self.damaged += 1
        log.error("a spool entry is damaged and lost", file=str(path), offset=offset, length=length)

    def _note_oldest(self) -> None:
        place = next(iter(self._places.values()), None)
        self.oldest_at_ms = None if place is None else place.at_ms


def _make_head(payload: bytes, sequence: int, at_ms: int) -> bytes:
    check = zlib.crc32(_CHECKED.pack(_MAGIC, len(payload), sequence, at_ms))
    return _HEAD.pack(_MAGIC, _PENDING, len(payload), sequence, at_ms, check, zlib.crc32(payload, check))


def _parse(data: bytes, offset: int) -> _Head | None:
    if len(data) < _HEAD.size:
        return None
    magic, state, length, sequence, at_ms, check, payload_check = _HEAD.unpack(data)
    if magic != _MAGIC or zlib.crc32(_CHECKED.pack(magic, length, sequence, at_ms)) != check:
        return None
    return _Head(offset, state == _RELEASED, length, sequence, at_ms, check, payload_check)


def _is_whole(fd: int, segment: _Segment, head: _Head) -> bool:
    payload = _pread(fd, segment, head.length, head.offset + _HEAD.size)
    return zlib.crc32(payload, head.check) == head.payload_check


def _find_magic(fd: int, segment: _Segment, at: int) -> int:
    while at < segment.size:
        chunk = _pread(fd, segment, _LOOK_BYTES, at)
        found = chunk.find(_MAGIC)
        if found >= 0:
            return at + found
        at += max(1, len(chunk) - len(_MAGIC) + 1) if chunk else _BLOCK_BYTES
    return segment.size


def _pread(fd: int, segment: _Segment, length: int, at: int) -> bytes:
    """As os.pread; what the disk does not give back any more is no bytes, which nothing takes for an entry."""
    try:
        return os.pread(fd, length, at)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        segment.unreadable = True
        return b""


def _read(place: _Place) -> bytes:
    fd = os.open(place.segment.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, _HEAD.size + place.length, place.offset)
    finally:
        os.close(fd)


def _mark_released(place: _Place) -> None:
    fd = os.open(place.segment.path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, bytes((_RELEASED,)), place.offset + _STATE_AT)
    finally:
        os.close(fd)


def _write(fd: int, data: bytes, at: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(fd, left, at)
        at, left = at + written, left[written:]


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power failure. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _failure(path: Path, error: OSError) -> SpoolError:
    if error.errno in _NO_ROOM:
        return SpoolFull(f"no room on the disk for {path}: {error.strerror}")
    return SpoolFailed(f"{path} cannot be written: {error}")
