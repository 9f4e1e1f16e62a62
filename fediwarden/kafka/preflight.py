"""Looks at the machine before anything is started: is the port free, is there room on the disk."""

import errno
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fediwarden.kafka.errors import DiskFull, PortTaken

_TCP_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENING = "0A"


def check_port(host: str, port: int, *, purpose: str, remedy: str, patience_s: float = 0.0) -> None:
    """Raise `PortTaken` unless `port` can be listened on at `host`.

    `purpose` says what needs the port, `remedy` which flag and variable choose another. With `patience_s` a port
    that is still being let go of (a process that was just killed) gets that many seconds.
    """
    give_up_at = time.monotonic() + patience_s
    while (fault := _bind_fault(host, port)) is not None:
        if fault != errno.EADDRINUSE:
            raise PortTaken(
                f"Cannot listen on {host}:{port} ({purpose}): {os.strerror(fault)}. "
                f"Choose another address or port: {remedy}."
            )
        if time.monotonic() >= give_up_at:
            holder = find_listener(port)
            by = f"by {holder}" if holder else "by another process"
            raise PortTaken(
                f"Port {port} on {host} ({purpose}) is taken {by}. Stop that, or choose another port: {remedy}."
            )
        time.sleep(0.1)  # no event tells when another process lets go of a port


def _bind_fault(host: str, port: int) -> int | None:
    """errno of a trial bind and listen, None when it worked. SO_REUSEADDR as Java and uvicorn set it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
            trial.listen(1)
        except OSError as fault:
            return fault.errno or errno.EINVAL
    return None


def find_listener(port: int) -> str | None:
    """Who listens on a TCP port, as ``name (pid 123)``; None where /proc does not tell (other users, no Linux)."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            for descriptor in (process / "fd").iterdir():
                if str(descriptor.readlink()) in inodes:
                    return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:  # gone meanwhile, or not ours to look into
            continue
    return None


def _listening_inodes(port: int) -> Iterator[str]:
    for table in _TCP_TABLES:
        try:
            rows = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            columns = row.split()
            if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                yield columns[9]


def check_disk(directory: Path, *, min_free_bytes: int, remedy: str) -> None:
    """Raise `DiskFull` when the file system of `directory` (which need not exist yet) has too little room."""
    place = directory
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < min_free_bytes:
        raise DiskFull(
            f"The disk of {directory} has {free / 1e9:.2f} GB free, {min_free_bytes / 1e9:.2f} GB are needed. "
            f"Free some, or {remedy}."
        )


@contextmanager
def disk_faults_named(directory: Path, *, remedy: str) -> Iterator[None]:
    """Turn "no space left" and "quota exceeded" inside the block into a `DiskFull` that names `directory`."""
    try:
        yield
    except OSError as fault:
        if fault.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(f"The disk of {directory} is full. Free some room, or {remedy}.") from fault
