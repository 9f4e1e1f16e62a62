"""What a sweep asks of a store, and the bytes of one object on their way from it to the gateway."""

import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from fediwarden.sweep.errors import Unwanted
from gateway.frames.frame import Unreadable, UnreadableReason
from gateway.frames.sniff import sniff

SKIPPED = "skipped"
UNSUPPORTED = "unsupported"
TOO_LARGE = "too_large"

CHUNK = 64 << 10
_MEMORY_BYTES = 4 << 20
_SNIFF_BYTES = 4096  # as far as the sniffer looks, but for what tells an apng from a png


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object that a store lists.

    `key` is the store's own name for it, `path` what a person calls it. `version` changes when the bytes do, "" where
    they never do. `aliases` are the names it is served under, where it has several. `fault` says why it cannot be read
    at all, where the listing shows that already.
    """

    key: str
    path: str
    version: str = ""
    aliases: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects, and where to go on: `position` for `Source.page`.

    `marks` are for the next pass, given with the first page of this one.
    """

    objects: tuple[StoredObject, ...]
    position: tuple[str, ...]
    marks: tuple[str, ...] = ()
    last: bool = False
    note: str = ""


class Source(Protocol):
    """A store of objects. `name` is shown and says nothing secret; `identity` tells it from every other one."""

    name: str
    identity: str

    async def check(self) -> None:
        """Return when the store can be listed. Raises `SourceUnknown`, `SourceRefused` or `SourceAway`."""

    async def page(self, position: tuple[str, ...], marks: tuple[str, ...]) -> Page:
        """The objects from `position` on (() for the first), up to or since `marks`, those of an earlier pass.

        Raises as `check` does.
        """

    async def read(self, stored: StoredObject, into: "Body") -> None:
        """Read all of an object. Raises `ObjectGone`, `ObjectUnread`, and `Unwanted` when `into` does."""

    async def remove(self, stored: StoredObject) -> None:
        """Remove an object that was judged. Raises `ObjectGone`, `ObjectChanged`, `ObjectUnread`."""

    async def move(self, stored: StoredObject, body: "Body") -> str:
        """Put `body` at the same path below the quarantine, remove the object, and say where it is now.

        Raises `ObjectGone`, `ObjectChanged`, `ObjectUnread`.
        """

    async def close(self) -> None:
        """Disconnect."""


class Body:
    """The bytes of one object: hashed on their way into memory or a file without a name. Also a context manager.

    `write` raises `Unwanted` as soon as they are not to be judged, so that no more of them is read than tells that.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115  # closed by close()
        self._hash = hashlib.sha256()
        self._head = b""
        self._known = False
        self.length = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        if not self._known:
            self._head += data
            if len(self._head) >= _SNIFF_BYTES:
                self._look()
        self.length += len(data)
        if self._known and self.length > self._most_bytes:
            raise Unwanted(TOO_LARGE, f"larger than {self._most_bytes} bytes (gateway.max_body_bytes)")
        self._hash.update(data)
        self._file.write(data)

    def finish(self) -> None:
        """Say that this was all."""
        if not self._known:
            self._look()

    def clear(self) -> None:
        """Begin anew."""
        self._file.seek(0)
        self._file.truncate()
        self._hash, self._head, self._known, self.length = hashlib.sha256(), b"", False, 0

    @property
    def sha256(self) -> bytes:
        """Of all that was written."""
        return self._hash.digest()

    async def chunks(self) -> AsyncIterator[bytes]:
        """All of it, from the beginning."""
        for piece in self.pieces():
            yield piece

    def pieces(self) -> Iterator[bytes]:
        """All of it, from the beginning, for those who have no event loop."""
        self._file.seek(0)
        while piece := self._file.read(CHUNK):
            yield piece

    def close(self) -> None:
        """Free the bytes."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _look(self) -> None:
        try:
            sniff(self._head)
        except Unreadable as error:
            is_image = error.reason is UnreadableReason.UNSUPPORTED
            raise Unwanted(UNSUPPORTED if is_image else SKIPPED, error.detail) from error
        self._known, self._head = True, b""
