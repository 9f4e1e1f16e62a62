"""The lists of a machine as files that any number of gateways read.

``NAME.list`` is one line of JSON, the header, and then the hashes as they are: PDQ, sha256, md5, each sorted; last the
notes, a JSON map from a hash to what is known of it. The header holds the definition, the numbers of hashes, the
version (12 hexadecimal digits of SHA-256 over the hashes) and the SHA-256 of all that follows. A file is written
beside and moved into place. ``NAME.suspended`` says that the list matched too much, and since when.
"""

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.lists.definition import ListDefinition
from gateway.lists.errors import ListDamaged, ListError, ListUnknown
from gateway.lists.kinds import WIDTH, HashKind
from schemas.clock import now_ms

if TYPE_CHECKING:
    from gateway.lists.hashes import HashSet

FORMAT = "fediwarden-list/1"
_LIST, _SUSPENDED = ".list", ".suspended"
_HEADER_MOST = 1 << 16

Note = dict[str, Any]
"""What is known of one hash: how it came here (``by``, ``at``, ``rules``), or that it must not again (``removed``)."""


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid")
    format: str
    definition: ListDefinition
    version: str
    fetched_at: int
    counts: dict[HashKind, int]
    sha256: str


class Suspension(BaseModel):
    """Why a list is not used: it matched `matched` of `images` different images."""

    model_config = ConfigDict(frozen=True)
    version: str
    matched: int
    images: int
    at: int
    by: str


@dataclass(frozen=True, slots=True)
class StoredList:
    """A list as it is on disk. `fetched_at` is when its source was last read, in milliseconds since the epoch."""

    definition: ListDefinition
    hashes: "HashSet"
    version: str
    fetched_at: int
    notes: Mapping[str, Note] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The list's name."""
        return self.definition.name


@dataclass(frozen=True, slots=True)
class Stamp:
    """What changes when a file is replaced."""

    inode: int
    modified_ns: int
    size: int


class ListStore:
    """The folder of the lists. Its methods touch the disk, some for long: not for an event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Every list there is, sorted."""
        return sorted(self.stamps())

    def stamps(self) -> dict[str, Stamp]:
        """Every list with its stamp; another stamp means another content. Raises `ListError` for a folder unread."""
        return self._stamps(_LIST)

    def suspended(self) -> dict[str, Stamp]:
        """The lists that are suspended, with a stamp of that."""
        return self._stamps(_SUSPENDED)

    def _stamps(self, suffix: str) -> dict[str, Stamp]:
        found = {}
        try:
            for path in self._folder.glob(f"*{suffix}"):
                with contextlib.suppress(FileNotFoundError):  # removed since
                    status = path.stat()
                    found[path.name.removesuffix(suffix)] = Stamp(status.st_ino, status.st_mtime_ns, status.st_size)
        except OSError as error:
            raise ListError(f"the lists in {self._folder} cannot be read: {error.strerror}") from error
        return found

    def load(self, name: str) -> StoredList:
        """The list of this name. Raises `ListUnknown` or `ListDamaged`."""
        path = self._path(name, _LIST)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            known = ", ".join(self.names()) or "none"
            raise ListUnknown(f"there is no list {name!r}; there are: {known}") from None
        except OSError as error:
            raise ListDamaged(f"{path} cannot be read: {error.strerror}") from error
        line = data[:_HEADER_MOST].partition(b"\n")[0]
        body = memoryview(data)[len(line) + 1 :]
        try:
            header = _Header.model_validate_json(line)
            return _unpack(header, body)
        except (ValidationError, ValueError, TypeError) as error:
            said = str(error).splitlines()[0]
            raise ListDamaged(
                f"{path} is damaged or not a list of this release ({said}); add it anew with --replace"
            ) from error

    def save(
        self,
        definition: ListDefinition,
        hashes: "HashSet",
        *,
        notes: Mapping[str, Note] | None = None,
        fetched_at: int | None = None,
    ) -> StoredList:
        """Put a list in the place of the one with its name. Raises `ListError` when the disk does not take it."""
        rows = b"".join(hashes.rows[kind].tobytes() for kind in HashKind)
        body = rows + orjson.dumps(notes or {})
        header = _Header(
            format=FORMAT,
            definition=definition,
            version=hashlib.sha256(rows).hexdigest()[:12],
            fetched_at=now_ms() if fetched_at is None else fetched_at,
            counts={kind: len(hashes.rows[kind]) for kind in HashKind},
            sha256=hashlib.sha256(body).hexdigest(),
        )
        self._write(self._path(definition.name, _LIST), header.model_dump_json().encode() + b"\n" + body)
        return StoredList(definition, hashes, header.version, header.fetched_at, notes or {})

    def remove(self, name: str) -> None:
        """Take a list away. Raises `ListUnknown`."""
        if name not in self.stamps():
            raise ListUnknown(f"there is no list {name!r}")
        self._path(name, _LIST).unlink(missing_ok=True)
        self.resume(name)

    def suspend(self, name: str, suspension: Suspension) -> None:
        """Have no gateway use this list until `resume`. Raises `ListError` when the disk does not take it."""
        self._write(self._path(name, _SUSPENDED), suspension.model_dump_json().encode())

    def suspension(self, name: str) -> Suspension | None:
        """Why the list is suspended; None where it is not. What cannot be read counts as suspended."""
        try:
            return Suspension.model_validate_json(self._path(name, _SUSPENDED).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return Suspension(version="", matched=0, images=0, at=0, by="unreadable")

    def resume(self, name: str) -> bool:
        """Use the list again; whether it was suspended."""
        path = self._path(name, _SUSPENDED)
        existed = path.exists()
        path.unlink(missing_ok=True)
        return existed

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from changing a list between this one's `load` and `save`."""
        self._make_folder()
        with (self._folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _path(self, name: str, suffix: str) -> Path:
        return self._folder / f"{name}{suffix}"

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ListError(f"the folder of the lists, {self._folder}, cannot be made: {error.strerror}") from error

    def _write(self, path: Path, data: bytes) -> None:
        self._make_folder()
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".new-", delete=False) as file:
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    Path(file.name).replace(path)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise ListError(f"{path} cannot be written: {error.strerror}") from error


def _unpack(header: _Header, body: memoryview) -> StoredList:
    import numpy as np  # a gateway without lists does without it

    from gateway.lists.hashes import HashSet

    if header.format != FORMAT:
        raise ValueError(f"format {header.format!r}")
    if hashlib.sha256(body).hexdigest() != header.sha256:
        raise ValueError("the checksum does not match")
    rows, at = {}, 0
    for kind in HashKind:
        size = header.counts.get(kind, 0) * WIDTH[kind]
        if size < 0 or at + size > len(body):
            raise ValueError("more hashes are announced than are there")
        rows[kind] = np.frombuffer(bytes(body[at : at + size]), np.uint8).reshape(-1, WIDTH[kind])
        at += size
    notes = orjson.loads(body[at:])
    if not isinstance(notes, dict):
        raise TypeError("notes are a map")
    return StoredList(header.definition, HashSet(rows), header.version, header.fetched_at, notes)
