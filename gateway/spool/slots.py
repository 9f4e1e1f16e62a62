"""Several gateways on one machine share one spool folder: each has a slot of its own, ``<folder>/<number>/``.

A slot is held by a flock on its file ``lock``, which ends with the process that holds it, however that dies. Slots and
lock files are never deleted: there are as many as gateways ever ran at one time.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.spool.errors import SpoolUnusable

_LOCK = "lock"


class Slot:
    """One held slot, until `release`. Also a context manager."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd: int | None = fd

    def release(self) -> None:
        """Let others have it. A second call changes nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def claim_slot(folder: Path) -> Slot:
    """The free slot with the lowest number, with whatever a dead gateway left in it. `folder` is made if need be.

    Raises `SpoolUnusable`.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = 0
        while (slot := _try_lock(folder / str(number))) is None:
            number += 1
    except OSError as error:
        raise SpoolUnusable(folder, error) from error
    return slot


def adopt_orphans(folder: Path) -> list[Slot]:
    """Every slot that nobody holds and that is not empty, held from now on. To be released when it is drained.

    Raises `SpoolUnusable`.
    """
    adopted: list[Slot] = []
    try:
        for path in sorted(folder.iterdir()):
            slot = _try_lock(path) if path.name.isdecimal() and _has_entries(path) else None
            if slot is not None:
                adopted.append(slot)
    except OSError as error:
        for slot in adopted:
            slot.release()
        raise SpoolUnusable(folder, error) from error
    return adopted


def _try_lock(path: Path) -> Slot | None:
    path.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    return Slot(path, fd)


def _has_entries(path: Path) -> bool:
    # A living gateway's files come and go while we look.
    for segment in path.glob("*/*.log"):
        try:
            if segment.stat().st_size:
                return True
        except FileNotFoundError:
            continue
    return False
