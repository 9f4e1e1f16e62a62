"""Reading a request's body once: hashed on the way into memory or into a file without a name."""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

import structlog

from gateway.multipart import MultipartFile, Piece
from gateway.refusals import ClientGone, Refusal, RefusalCode
from gateway.settings import GatewaySettings

log = structlog.get_logger("gateway.bodies")

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
"""ASGI's receive: the request's next event."""

_FILE_WRITE_BYTES = 1 << 20
_FORM_OVERHEAD_BYTES = 256 << 10


class Body:
    """A body that is wholly here. Owns `fd` (at offset 0) until `close`; also a context manager."""

    __slots__ = ("_bodies", "_fd", "_held", "length", "md5", "sha256")

    def __init__(
        self, bodies: "Bodies", fd: int, *, held: int, length: int, sha256: bytes, md5: bytes | None = None
    ) -> None:
        self._bodies = bodies
        self._fd: int | None = fd
        self._held = held
        self.length = length
        self.sha256 = sha256
        self.md5 = md5

    @property
    def fd(self) -> int:
        """A readable memfd or nameless file. Raises ValueError after `close`."""
        if self._fd is None:
            raise ValueError("the body is closed")
        return self._fd

    def close(self) -> None:
        """Free the bytes. Closing twice changes nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            self._bodies.give_back(self._held)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Bodies:
    """Every body this gateway holds, bounded in bytes all together (`max_in_flight_bytes`).

    `needs_md5` is asked at each body's begin whether its md5 is wanted: it costs as much as the sha256 again.
    """

    def __init__(self, settings: GatewaySettings, *, needs_md5: Callable[[], bool] = lambda: False) -> None:
        self._settings = settings
        self._needs_md5 = needs_md5
        # A body that is not here by the deadline cannot be judged later either: the sender is told in time.
        self._within_s = min(settings.body_timeout_s, settings.deadline_ms / 1000)
        self._held = 0

    @property
    def held_bytes(self) -> int:
        """Bytes that all open bodies hold now."""
        return self._held

    async def read(self, receive: Receive, *, content_type: str = "", content_length: int | None = None) -> Body:
        """Read a request's body to its end: raw, or the one file of a multipart/form-data form.

        Raises `Refusal` (body_too_large, body_too_slow, full, malformed_multipart, no_file, several_files) or
        `ClientGone`. Nothing is held afterwards unless a `Body` was returned.
        """
        is_form = content_type[:19].lower() == "multipart/form-data"
        most_bytes = self._settings.max_body_bytes + (_FORM_OVERHEAD_BYTES if is_form else 0)
        if content_length is not None and content_length > most_bytes:
            raise self._too_large()
        form = MultipartFile(content_type) if is_form else None
        intake: _Intake | None = None
        held = 0
        try:
            intake = _Intake(self._settings, with_md5=self._needs_md5())
            async with asyncio.timeout(self._within_s):
                more = True
                while more:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        raise ClientGone
                    more = event.get("more_body", False)
                    data: bytes = event.get("body", b"")
                    if not data:
                        continue
                    if held + len(data) > most_bytes:
                        raise self._too_large()
                    self._take(len(data))
                    held += len(data)
                    for piece in form.feed(data) if form else (data,):
                        await intake.write(piece)
                    if intake.length > self._settings.max_body_bytes:
                        raise self._too_large()
                if form:
                    form.finish()
                fd = await intake.finish()
        except BaseException as error:
            if intake is not None:
                intake.discard()
            self.give_back(held)
            refusal = self._as_refusal(error)
            if refusal is None:
                raise
            raise refusal from error
        return Body(self, fd, held=held, length=intake.length, sha256=intake.sha256, md5=intake.md5)

    def _take(self, size: int) -> None:
        if self._held + size > self._settings.max_in_flight_bytes:
            raise Refusal(
                RefusalCode.FULL,
                "the bodies in flight fill the room there is for them",
                remedy="try again in a moment; gateway.max_in_flight_bytes is the bound",
            )
        self._held += size

    def give_back(self, size: int) -> None:
        """Note that `size` bytes are free again."""
        self._held -= size

    def _as_refusal(self, error: BaseException) -> Refusal | None:
        """What the client is told about `error`; None where it speaks for itself."""
        if isinstance(error, TimeoutError):
            return Refusal(
                RefusalCode.BODY_TOO_SLOW,
                f"the body was not here after {self._within_s:g} s",
                field="body",
                remedy="send it faster, or raise gateway.body_timeout_s and gateway.deadline_ms",
            )
        if isinstance(error, OSError):
            log.error("body not held", error=str(error), body_dir=str(self._settings.body_dir))
            return Refusal(
                RefusalCode.FULL,
                "there is no room to hold the body",
                remedy="try again later; the gateway's log names the cause (disk, memory or open files)",
            )
        return None

    def _too_large(self) -> Refusal:
        return Refusal(
            RefusalCode.BODY_TOO_LARGE,
            f"the body is larger than {self._settings.max_body_bytes} bytes",
            field="body",
            remedy="send a smaller file, or raise gateway.max_body_bytes",
        )


class _Intake:
    """Takes pieces; holds them in a memfd, from `memory_body_bytes` on in a nameless file."""

    def __init__(self, settings: GatewaySettings, *, with_md5: bool = False) -> None:
        self._settings = settings
        self._hash = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if with_md5 else None
        self._fd = os.memfd_create("body", os.MFD_CLOEXEC)
        self._in_file = False
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._writing: asyncio.Future[None] | None = None
        self.length = 0

    @property
    def sha256(self) -> bytes:
        return self._hash.digest()

    @property
    def md5(self) -> bytes | None:
        return self._md5.digest() if self._md5 is not None else None

    async def write(self, piece: Piece) -> None:
        self.length += len(piece)
        if not self._in_file and self.length <= self._settings.memory_body_bytes:
            self._update(piece)
            _write_all(self._fd, piece)
            return
        self._waiting.append(bytes(piece))
        self._waiting_bytes += len(piece)
        if self._waiting_bytes >= _FILE_WRITE_BYTES:
            await self._flush()

    async def finish(self) -> int:
        """The descriptor, at offset 0; the caller's from now on."""
        if self._waiting:
            await self._flush()
        os.lseek(self._fd, 0, os.SEEK_SET)
        return self._fd

    def discard(self) -> None:
        if self._writing is not None and not self._writing.done():
            # A time-out does not stop the thread that is writing: closing under it could hit another's descriptor.
            self._writing.add_done_callback(self._close_after)
        else:
            os.close(self._fd)

    def _close_after(self, writing: asyncio.Future[None]) -> None:
        os.close(self._fd)
        if not writing.cancelled() and (error := writing.exception()):
            log.warning("write of a body given up on failed", error=str(error))

    async def _flush(self) -> None:
        pieces, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._writing = asyncio.ensure_future(asyncio.to_thread(self._write_to_file, pieces))
        await asyncio.shield(self._writing)

    def _write_to_file(self, pieces: list[bytes]) -> None:
        # A disk may block: this runs in a thread, one piece of work at a time for each body.
        if not self._in_file:
            self._move_to_file()
        for piece in pieces:
            self._update(piece)
            _write_all(self._fd, piece)

    def _update(self, piece: Piece) -> None:
        self._hash.update(piece)
        if self._md5 is not None:
            self._md5.update(piece)

    def _move_to_file(self) -> None:
        with tempfile.TemporaryFile(dir=self._settings.body_dir, buffering=0) as file:
            fd = os.dup(file.fileno())
        try:
            offset = 0
            end = os.fstat(self._fd).st_size
            while offset < end:
                offset += os.sendfile(fd, self._fd, offset, end - offset)
        except BaseException:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd = fd
        self._in_file = True


def _write_all(fd: int, piece: Piece) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]
