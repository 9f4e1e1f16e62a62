"""A worker process: one file at a time, from a descriptor in a message to frames in the answer.

Wire, both ways over one stream socket: a job is 16 bytes (length of the file, the job's number; both little-endian)
with the file's descriptor attached (SCM_RIGHTS); an answer is 4 bytes of length (little-endian) and a msgpack map. The
first answer, before any job, is ``{"protections": {...}, "missing": [...]}``; then for each job ``{"frames": ...}`` or
``{"reason": ..., "detail": ...}``, both with ``rss``, the resident memory in bytes, and ``job``, its number: drawn by
lot, so that no answer is given before its job.
"""

import math
import os
import re
import resource
import socket
import struct
import time
from collections.abc import Callable

import msgpack

from gateway.frames.frame import Frame, FrameSet, Unreadable, UnreadableReason
from gateway.frames.sandbox import close_in
from gateway.frames.settings import FrameSettings
from schemas.topics import FRAMES_MAX_BYTES

Extractor = Callable[[bytes, FrameSettings], FrameSet]
"""From the bytes of a file to its frames; raises `Unreadable`."""

JOB = struct.Struct("<QQ")
HEADER = struct.Struct("<I")
_DESCRIPTORS = 16
_PAGE = os.sysconf("SC_PAGE_SIZE")
_JPEG_BEGINS, _JPEG_ENDS = b"\xff\xd8", b"\xff\xd9"
_MEDIA_TYPE = re.compile(r"[a-z]{1,20}/[a-z0-9.+-]{1,40}")


def serve(connection: socket.socket, settings: FrameSettings, extractor: Extractor) -> None:
    """Shuts the process in, then answers jobs until the other end closes."""
    statm = os.open("/proc/self/statm", os.O_RDONLY)
    protections = close_in(settings.memory_mb, _DESCRIPTORS)
    _send(connection, {"protections": protections.as_dict(), "missing": list(protections.missing)})
    while True:
        message, descriptors, _flags, _address = socket.recv_fds(connection, JOB.size, 1)
        if len(message) < JOB.size or not descriptors:
            return
        length, job = JOB.unpack(message)
        _limit_cpu(settings.wall_s)
        answer = _answer(descriptors[0], length, settings, extractor)
        answer |= {"job": job, "rss": int(os.pread(statm, 128, 0).split()[1]) * _PAGE}
        _send(connection, answer)


def _limit_cpu(wall_s: float) -> None:
    """Moves the CPU limit on for one more job. The kill comes from the gateway; this holds if that is stuck."""
    allowed = math.ceil(time.process_time() + wall_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _answer(descriptor: int, length: int, settings: FrameSettings, extractor: Extractor) -> dict[str, object]:
    try:
        data = _read(descriptor, length)
        return {"frames": pack(extractor(data, settings))}
    except Unreadable as unreadable:
        return {"reason": unreadable.reason.value, "detail": unreadable.detail}
    except MemoryError:
        return {"reason": UnreadableReason.TOO_MUCH_MEMORY.value, "detail": "more memory than allowed is needed"}
    except BaseException as error:  # noqa: BLE001 - the process edge; the plugin for JPEG XL panics past Exception
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        return {"reason": UnreadableReason.DAMAGED.value, "detail": detail[:200]}


def _read(descriptor: int, length: int) -> bytes:
    try:
        data = os.pread(descriptor, length, 0)
        while len(data) < length:
            more = os.pread(descriptor, length - len(data), len(data))
            if not more:
                raise Unreadable(UnreadableReason.TRUNCATED, f"{len(data)} of {length} bytes have arrived")
            data += more
        return data
    finally:
        os.close(descriptor)


def _send(connection: socket.socket, answer: dict[str, object]) -> None:
    body: bytes = msgpack.packb(answer)
    connection.sendall(HEADER.pack(len(body)) + body)


def pack(found: FrameSet) -> list[object]:
    """A frame set as plain values, for msgpack."""
    frames = [[f.jpeg, f.width, f.height, f.at_ms, f.pdq, f.pdq_quality, f.pdq_turned] for f in found.frames]
    return [found.media_type, found.width, found.height, found.duration_ms, frames]


def unpack(packed: object) -> FrameSet:
    """The frame set that `pack` made; raises ValueError or TypeError for anything else.

    A worker has handled hostile bytes: its answer is checked like a stranger's.
    """
    media_type, width, height, duration_ms, rows = packed  # type: ignore[misc]
    frames = tuple(Frame(*row) for row in rows)  # type: ignore[has-type]
    found = FrameSet(media_type, width, height, duration_ms, frames)  # type: ignore[has-type]
    numbers = [found.width, found.height, found.duration_ms]
    for frame in frames:
        numbers += [frame.width, frame.height, frame.at_ms, frame.pdq_quality]
        if not all(isinstance(each, bytes) for each in (frame.jpeg, frame.pdq, frame.pdq_turned)):
            raise ValueError("a frame's jpeg and hashes must be bytes")
        if (len(frame.pdq), len(frame.pdq_turned)) != (32, 7 * 32):
            raise ValueError("a frame's hash has 32 bytes, those of its turns 7 times as many")
        if not (frame.jpeg.startswith(_JPEG_BEGINS) and frame.jpeg.endswith(_JPEG_ENDS)):
            raise ValueError("a frame is a JPEG")
    if sum(len(frame.jpeg) for frame in frames) > FRAMES_MAX_BYTES:
        raise ValueError(f"frames have {FRAMES_MAX_BYTES} bytes at most")
    if not isinstance(found.media_type, str) or _MEDIA_TYPE.fullmatch(found.media_type) is None:
        raise ValueError("a frame set's media type is a short word of each side of a slash")
    if not all(type(n) is int and 0 <= n < 1 << 40 for n in numbers):
        raise ValueError("a frame set's sizes and times must be whole numbers of zero or more")
    if not 1 <= len(frames) <= 8:
        raise ValueError(f"{len(frames)} frames; one to eight are possible")
    return found
