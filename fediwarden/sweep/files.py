"""Folders, S3-compatible stores and SFTP servers as sources of a sweep, through fsspec.

fsspec's calls block, so each runs in a thread.
"""

import asyncio
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

from fediwarden.sweep.errors import (
    ObjectChanged,
    ObjectError,
    ObjectGone,
    ObjectUnread,
    SourceAway,
    SourceRefused,
    SourceUnknown,
    SweepError,
)
from fediwarden.sweep.source import CHUNK, Body, Page, StoredObject
from schemas.clock import now_ms

PAGE = 50
_PASSED_MOST = 2000
"""Objects passed over between two checkpoints, where hardly any is new."""

_CLOCKS_DIFFER_MS = 3_600_000
"""How far a store's clock may be from ours: so much before the begin of a pass, the next one looks for new objects."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Entry:
    """One object as a store lists it; `path` is relative to what is swept, `changed_ms` is by the store's clock."""

    path: str
    version: str
    changed_ms: int
    fault: str = ""


class FilesSource(ABC):
    """Whatever fsspec can list, read and delete in.

    A position is the path of the last object, percent-encoded; a mark is the time from which on objects are new to the
    next pass. `root` is what is swept, `quarantine` where `move` puts objects: both as the file system `fs` spells
    paths. `refused` are its errors that say that our credentials are not taken, `failed` all that it may raise.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        root: str,
        *,
        quarantine: str | None,
        refused: tuple[type[Exception], ...],
        failed: tuple[type[Exception], ...],
        credentials: str,
        page: int = PAGE,
    ) -> None:
        self.name = name
        self.identity = identity
        self._root = root
        self._quarantine = quarantine
        self._refused: tuple[type[Exception], ...] = (PermissionError, *refused)
        self._failed: tuple[type[Exception], ...] = (OSError, *failed)
        self._credentials = credentials
        self._page = page
        self._fs: Any = None
        self._under_way: Iterator[Entry] | None = None
        self._at: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    @abstractmethod
    def _connect(self) -> Any:
        """A file system of fsspec's, newly connected."""

    @abstractmethod
    def _entries(self, after: str) -> Iterator[Entry]:
        """Every object after the path `after`, in an order that stays."""

    @abstractmethod
    def _version(self, info: dict[str, Any]) -> str:
        """What changes with the bytes, of one of fsspec's descriptions."""

    @abstractmethod
    def _look(self) -> None:
        """Raise unless what is swept is there."""

    async def close(self) -> None:
        """Disconnect: fsspec does so when nobody holds the file system any more."""
        self._fs = self._under_way = None

    async def check(self) -> None:
        """Return when what is swept is there; connects anew where that may help."""
        await self._in_thread(self._check)

    async def page(self, position: tuple[str, ...], marks: tuple[str, ...]) -> Page:
        """The objects after `position` that changed since `marks`."""
        return await self._in_thread(lambda: self._read_page(position, marks))

    async def read(self, stored: StoredObject, into: Body) -> None:
        """Read all of an object."""
        await self._at_object(lambda: self._read(stored, into))

    async def remove(self, stored: StoredObject) -> None:
        """Delete an object, unless it has changed since it was listed."""
        await self._at_object(lambda: self._remove(stored))

    async def move(self, stored: StoredObject, body: Body) -> str:
        """Write `body` below the quarantine, then delete the object as `remove` does.

        Written and not renamed: what was judged is what is kept, and not every store can rename.
        """
        return await self._at_object(lambda: self._move(stored, body))

    def _open(self) -> Any:
        if self._fs is None:
            self._fs = self._connect()
        return self._fs

    def _check(self) -> None:
        if self._fs is not None:
            try:
                self._look()
                return
            except self._failed:
                self._fs = None
        self._look()

    def _read_page(self, position: tuple[str, ...], marks: tuple[str, ...]) -> Page:
        begun_ms = now_ms()
        since_ms = int(marks[0]) if marks else 0
        if self._under_way is None or self._at != (position, marks):
            self._under_way = self._entries(_decoded(position[0]) if position else "")
        self._at = None  # should this fail, the next call begins at its position
        objects: list[StoredObject] = []
        entry: Entry | None = None
        last = True
        for passed, entry in enumerate(self._under_way, 1):
            if entry.fault or entry.changed_ms >= since_ms:
                objects.append(StoredObject(entry.path, _printable(entry.path), entry.version, fault=entry.fault))
            if len(objects) >= self._page or passed >= _PASSED_MOST:
                last = False
                break
        on = (_encoded(entry.path),) if entry is not None and not last else ()
        self._at = (on, marks)
        if last:
            self._under_way = None
        new_marks = () if position else (str(begun_ms - _CLOCKS_DIFFER_MS),)
        return Page(tuple(objects), on, new_marks, last)

    def _read(self, stored: StoredObject, into: Body) -> None:
        with self._open().open(self._full(stored.key), "rb") as file:
            while chunk := file.read(CHUNK):
                into.write(chunk)
        into.finish()

    def _remove(self, stored: StoredObject) -> None:
        self._check_version(stored)
        self._open().rm_file(self._full(stored.key))

    def _move(self, stored: StoredObject, body: Body) -> str:
        assert self._quarantine is not None, "open_source says so"
        fs = self._open()
        target = f"{self._quarantine}/{stored.key}"
        if self._exists(target):
            target += f".{body.sha256.hex()[:16]}"
        self._make_folder(str(PurePosixPath(target).parent))
        with fs.open(target, "wb") as file:
            for piece in body.pieces():
                file.write(piece)
        if (size := fs.info(target)["size"]) != body.length:
            raise ObjectUnread(f"{size} of {body.length} bytes arrived at {_printable(target)}: the object stays")
        self._remove(stored)
        return _printable(target)

    def _exists(self, path: str) -> bool:
        """As fsspec's own, which takes every error for a no."""
        try:
            self._open().info(path)
        except FileNotFoundError:
            return False
        return True

    def _make_folder(self, folder: str) -> None:
        self._open().makedirs(folder, exist_ok=True)

    def _check_version(self, stored: StoredObject) -> None:
        if self._version(self._open().info(self._full(stored.key))) != stored.version:
            raise ObjectChanged("it has changed since it was listed")

    def _full(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        """What `call` gives. Raises a `SweepError` where it raises an error of the store's."""
        try:
            return await asyncio.to_thread(call)
        except self._failed as error:
            raise self._explain(error) from error

    async def _at_object(self, call: Callable[[], Result]) -> Result:
        """What `call` gives. Raises an `ObjectError` where it raises an error of the store's."""
        try:
            return await asyncio.to_thread(call)
        except ObjectError:
            raise
        except FileNotFoundError as error:
            raise ObjectGone("it is there no more") from error
        except self._failed as error:
            raise ObjectUnread(_said(error)) from error

    def _explain(self, error: Exception) -> SweepError:
        if isinstance(error, self._refused):
            return SourceRefused(f"{self.name} refuses us ({_said(error)}); {self._credentials}")
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return SourceUnknown(f"there is no {self.name} ({_said(error)}); look at the name for a slip")
        return SourceAway(f"{self.name} does not answer ({_said(error)}); is it running, and is this its address?")


class _Walked(FilesSource):
    """A source with folders, walked in the order of their names. Links and what is no file are passed over."""

    def _look(self) -> None:
        if self._open().info(self._root)["type"] != "directory":
            raise NotADirectoryError("it is no folder")

    def _entries(self, after: str) -> Iterator[Entry]:
        self._look()
        return self._walk((), tuple(after.split("/")) if after else ())

    def _walk(self, folder: tuple[str, ...], after: tuple[str, ...]) -> Iterator[Entry]:
        try:
            infos = self._open().ls(self._full("/".join(folder)) if folder else self._root, detail=True)
        except self._failed as error:
            if not folder:
                raise
            self._look()  # it may be the store that is away
            yield Entry("/".join(folder), "", 0, fault=f"this folder cannot be listed: {_said(error)}")
            return
        for info in sorted(infos, key=_name):
            place = (*folder, _name(info))
            path = "/".join(place)
            if info["type"] == "directory" and self._full(path) != self._quarantine:
                if place >= after[: len(place)]:
                    yield from self._walk(place, after)
            elif info["type"] == "file" and not info.get("islink") and place > after:
                yield Entry(path, self._version(info), self._changed_ms(info))

    @abstractmethod
    def _changed_ms(self, info: dict[str, Any]) -> int:
        """When it was last changed."""


class FolderSource(_Walked):
    """A folder of this machine."""

    def __init__(self, folder: Path, *, host: str, quarantine: str | None, page: int = PAGE) -> None:
        super().__init__(
            f"folder {folder}",
            f"folder {host}:{folder}",  # the same path on another machine is another folder
            str(folder),
            quarantine=quarantine,
            refused=(),
            failed=(),
            credentials="run this as a user who may read it",
            page=page,
        )

    def _connect(self) -> Any:
        from fsspec.implementations.local import LocalFileSystem

        return LocalFileSystem(skip_instance_cache=True)

    def _version(self, info: dict[str, Any]) -> str:
        return f"{info['size']} {info['mtime']} {info['ino']}"

    def _changed_ms(self, info: dict[str, Any]) -> int:
        # A file that was moved here keeps its mtime.
        return int(max(info["mtime"], info["created"]) * 1000)

    def _make_folder(self, folder: str) -> None:
        assert self._quarantine is not None
        Path(self._quarantine).mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        super()._make_folder(folder)


class SftpSource(_Walked):
    """A folder of an SFTP server. `options` go to asyncssh."""

    def __init__(
        self, name: str, host: str, root: str, options: dict[str, Any], *, quarantine: str | None, page: int = PAGE
    ) -> None:
        import asyncssh

        super().__init__(
            name,
            name,
            root,
            quarantine=quarantine,
            refused=(asyncssh.PermissionDenied, asyncssh.HostKeyNotVerifiable, asyncssh.SFTPPermissionDenied),
            failed=(asyncssh.Error,),
            credentials="a key in the SSH agent, sweep.sftp_identity or sweep.sftp_password has to be one that it"
            " takes, and its host key has to stand in ~/.ssh/known_hosts (or sweep.sftp_known_hosts)",
            page=page,
        )
        self._host = host
        self._options = options

    def _connect(self) -> Any:
        from sshfs import SSHFileSystem

        return SSHFileSystem(
            self._host,
            skip_instance_cache=True,
            sftp_client_kwargs={"path_errors": "surrogateescape"},
            **self._options,
        )

    def _version(self, info: dict[str, Any]) -> str:
        return f"{info['size']} {info['mtime']}"

    def _changed_ms(self, info: dict[str, Any]) -> int:
        return _epoch_ms(info["mtime"])


class S3Source(FilesSource):
    """The objects of a bucket, or those below a prefix, in the order of their keys. `options` go to s3fs."""

    def __init__(
        self,
        name: str,
        identity: str,
        bucket: str,
        prefix: str,
        options: dict[str, Any],
        *,
        quarantine: str | None,
        page: int = PAGE,
    ) -> None:
        import aiohttp
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        super().__init__(
            name,
            identity,
            f"{bucket}/{prefix}" if prefix else bucket,
            quarantine=quarantine,
            refused=(NoCredentialsError, PartialCredentialsError),
            failed=(BotoCoreError, ClientError, aiohttp.ClientError),
            credentials="sweep.s3_key_id and sweep.s3_secret (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) have to"
            " be a key that may list and read there, and delete with --apply",
            page=page,
        )
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._options = options

    def _connect(self) -> Any:
        from s3fs import S3FileSystem

        return S3FileSystem(skip_instance_cache=True, use_listings_cache=False, **self._options)

    def _look(self) -> None:
        self._list("", 1)

    def _entries(self, after: str) -> Iterator[Entry]:
        last = f"{self._prefix}{after}" if after else ""
        while found := self._list(last, 1000):
            for info in found:
                key = info["Key"]
                if not key.endswith("/") and not self._is_quarantined(f"{self._bucket}/{key}"):
                    version = f"{info['Size']} {info.get('ETag', '')}"
                    yield Entry(key.removeprefix(self._prefix), version, _epoch_ms(info["LastModified"]))
            last = found[-1]["Key"]

    def _is_quarantined(self, path: str) -> bool:
        return self._quarantine is not None and path.startswith(f"{self._quarantine}/")

    def _list(self, after: str, most: int) -> list[dict[str, Any]]:
        where = {"StartAfter": after} if after else {}
        answer = self._open().call_s3(
            "list_objects_v2", Bucket=self._bucket, Prefix=self._prefix, MaxKeys=most, **where
        )
        return list(answer.get("Contents", ()))

    def _version(self, info: dict[str, Any]) -> str:
        return f"{info['size']} {info.get('ETag', '')}"

    def _make_folder(self, folder: str) -> None:
        """There are no folders to make."""


def _name(info: dict[str, Any]) -> str:
    return str(info["name"]).rstrip("/").rpartition("/")[2]


def _epoch_ms(moment: datetime | None) -> int:
    return int(moment.timestamp() * 1000) if moment is not None else 0


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _encoded(path: str) -> str:
    """As printable text, whatever bytes the name has."""
    return quote_from_bytes(path.encode("utf-8", "surrogateescape"))


def _decoded(path: str) -> str:
    return unquote_to_bytes(path).decode("utf-8", "surrogateescape")


def _printable(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
