"""A disk under a folder that remembers every write, so that a test can have it as a crash would have left it."""

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch


@dataclass(frozen=True)
class Operation:
    """One thing done to the disk: create, write, truncate, unlink, sync (a file's bytes) or sync-names."""

    kind: str
    file: int = 0
    name: str = ""
    at: int = 0
    data: bytes = b""


@dataclass
class State:
    """Files by name, and their bytes by number (a file unlinked and created again is another one)."""

    names: dict[str, int] = field(default_factory=dict)
    contents: dict[int, bytearray] = field(default_factory=dict)

    def apply(self, operation: Operation, *, data: bytes | None = None) -> None:
        """Do `operation`; of a write only `data`, where that is given."""
        content = self.contents.setdefault(operation.file, bytearray())
        match operation.kind:
            case "create":
                self.names[operation.name] = operation.file
            case "unlink":
                self.names.pop(operation.name, None)
            case "truncate":
                content[:] = content[: operation.at].ljust(operation.at, b"\0")
            case "write":
                data = operation.data if data is None else data
                if data:
                    content.extend(bytes(max(0, operation.at - len(content))))
                    content[operation.at : operation.at + len(data)] = data

    def copy(self) -> "State":
        return State(dict(self.names), {number: bytearray(content) for number, content in self.contents.items()})

    def save(self, folder: Path) -> None:
        """Write the files into `folder`, which is made."""
        folder.mkdir(parents=True)
        for name, number in self.names.items():
            (folder / name).write_bytes(self.contents.get(number, b""))


class RecordedDisk(AbstractContextManager["RecordedDisk"]):
    """Records what is done to the files in `folder` while it is entered.

    `room` is how many more bytes fit (None: any number), `broken` makes every sync fail. Nothing is really synced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.operations: list[Operation] = []
        self.room: int | None = None
        self.broken = False
        self._base = State()
        self._numbers: dict[str, int] = {}
        for number, path in enumerate(sorted(folder.glob("*")) if folder.exists() else ()):
            self._numbers[path.name] = self._base.names[path.name] = number
            self._base.contents[number] = bytearray(path.read_bytes())
        self._next = len(self._numbers)
        self._open: dict[int, int | None] = {}
        self._patches = ExitStack()
        self._real = {name: getattr(os, name) for name in ("open", "close", "pwrite", "ftruncate", "fsync", "unlink")}

    def after_kill(self, operations: int, cut: int) -> State:
        """What is on disk when the process dies `cut` bytes into the operation behind the first `operations`."""
        state = self._base.copy()
        for operation in self.operations[:operations]:
            state.apply(operation)
        for operation in self.operations[operations : operations + 1]:
            if operation.kind == "write":
                state.apply(operation, data=operation.data[:cut])
        return state

    def after_power_loss(self, operations: int, choose: Callable[[int], int]) -> State:
        """What may be on disk when power fails after the first `operations`.

        What was synced is there. Of the rest, `choose(n)` (0 to n) says how many of the names' changes, which reach
        the disk in order, and how many bytes of each write, which do not.
        """
        done = self.operations[:operations]
        names_synced = max((i for i, o in enumerate(done) if o.kind == "sync-names"), default=-1)
        volatile = [i for i, o in enumerate(done) if o.kind in ("create", "unlink") and i > names_synced]
        lost_names = set(volatile[choose(len(volatile)) :])
        synced = {o.file: i for i, o in enumerate(done) if o.kind == "sync"}
        state = self._base.copy()
        for i, operation in enumerate(done):
            if operation.kind in ("create", "unlink"):
                if i not in lost_names:
                    state.apply(operation)
            elif i < synced.get(operation.file, -1):
                state.apply(operation)
            elif operation.kind == "write":
                state.apply(operation, data=operation.data[: choose(len(operation.data))])
            elif choose(1):
                state.apply(operation)
        return state

    def __enter__(self) -> Self:
        for name, double in {
            "open": self._do_open,
            "close": self._do_close,
            "pwrite": self._do_pwrite,
            "ftruncate": self._do_ftruncate,
            "fsync": self._do_fsync,
            "fdatasync": self._do_fsync,
            "unlink": self._do_unlink,
        }.items():
            self._patches.enter_context(patch.object(os, name, double))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._patches.close()

    def _do_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        path = Path(os.fsdecode(path))
        new = not path.exists()
        fd = self._real["open"](path, flags, mode, dir_fd=dir_fd)
        if path == self.folder:
            self._open[fd] = None
        elif path.parent == self.folder:
            if new:
                self._numbers[path.name] = self._next
                self._next += 1
                self.operations.append(Operation("create", self._numbers[path.name], path.name))
            self._open[fd] = self._numbers[path.name]
        return fd

    def _do_close(self, fd: int) -> None:
        self._open.pop(fd, None)
        self._real["close"](fd)

    def _do_pwrite(self, fd: int, data: Any, at: int) -> int:
        if fd not in self._open:
            return self._real["pwrite"](fd, data, at)
        data = bytes(data)
        grows = at + len(data) > os.fstat(fd).st_size
        if grows and self.room is not None:
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = data[: self.room]
            self.room -= len(data)
        self.operations.append(Operation("write", self._open[fd], at=at, data=data))
        return self._real["pwrite"](fd, data, at)

    def _do_ftruncate(self, fd: int, length: int) -> None:
        self._real["ftruncate"](fd, length)
        if fd in self._open:
            self.operations.append(Operation("truncate", self._open[fd], at=length))

    def _do_fsync(self, fd: int) -> None:
        if fd not in self._open:
            return self._real["fsync"](fd)
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        number = self._open[fd]
        self.operations.append(Operation("sync-names") if number is None else Operation("sync", number))

    def _do_unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        path = Path(os.fsdecode(path))
        self._real["unlink"](path, dir_fd=dir_fd)
        if path.parent == self.folder:
            self.operations.append(Operation("unlink", self._numbers[path.name], path.name))
