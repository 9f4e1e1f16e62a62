"""Taking a port, and serving on it without uvicorn's own signal handling."""

import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

BACKLOG = 2048
_OPEN_FILES = 65_536


class CannotStart(Exception):
    """A setting that this machine does not allow; the message names it and the remedy."""


class Server(uvicorn.Server):
    """uvicorn's server; whoever runs it stops it by `should_exit`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to our caller: uvicorn raises them again at its end, which spoils the exit code."""
        yield


def listen(host: str, port: int, *, setting: str, host_setting: str) -> socket.socket:
    """A socket that listens there. Raises `CannotStart`, naming the settings `setting` and `host_setting`."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise CannotStart(
            f"cannot listen on {host}:{port} ({error.strerror or error}):"
            f" set {setting} or {host_setting}, or stop what holds the port"
        ) from error


def allow_open_files() -> None:
    """Raise the soft limit: each connection is a descriptor and so is each body; the usual 1024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
