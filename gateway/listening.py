"""Taking a port, and serving on it without uvicorn's own signal handling."""

import asyncio
import ctypes
import resource
import select
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

BACKLOG = 2048
_OPEN_FILES = 65_536
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_BPF_RETURN = 0x06  # linux/bpf_common.h: BPF_RET | BPF_K


class CannotStart(Exception):
    """A setting that this machine does not allow; the message names it and the remedy."""


class Server(uvicorn.Server):
    """uvicorn's server; whoever runs it stops it by `should_exit`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to our caller: uvicorn raises them again at its end, which spoils the exit code."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, but take in first whom the kernel has let in: closing the port would reset them.

        Who comes from now on is not let in any more: it tries again a second later, or elsewhere.
        """
        for each in sockets or ():
            _let_nobody_in(each)
            while _is_somebody_waiting(each):  # noqa: ASYNC110  (the loop takes them in, uvloop one each time round)
                await asyncio.sleep(0)
        for _ in range(2):  # whoever was taken last becomes a connection that is told
            await asyncio.sleep(0)
        await super().shutdown(sockets)


def bind(host: str, port: int, *, setting: str, host_setting: str) -> socket.socket:
    """A socket that holds the port and does not listen yet.

    Whoever connects before there is somebody to read is refused, and can go to another gateway; taken, it would wait
    for as long as we start. Raises `CannotStart`, naming the settings `setting` and `host_setting`.
    """
    with _named(f"{host}:{port}", setting, host_setting):
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((host, port))
        except OSError:
            bound.close()
            raise
        return bound


def listen(bound: socket.socket, *, setting: str, host_setting: str) -> None:
    """Take connections from now on. Raises `CannotStart` where another process was faster, naming the settings."""
    host, port = bound.getsockname()[:2]
    with _named(f"{host}:{port}", setting, host_setting):
        bound.listen(BACKLOG)


def _let_nobody_in(listening: socket.socket) -> None:
    """Have the kernel drop whatever comes to the port, so that nobody is let in between our last look and its closing.

    A socket filter (socket(7), SO_ATTACH_FILTER) of one instruction, "take 0 bytes"; on Linux alone.
    """
    if sys.platform == "linux":
        instruction = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0))
        program = struct.pack("HL", 1, ctypes.addressof(instruction))
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _is_somebody_waiting(listening: socket.socket) -> bool:
    waiting = select.poll()
    waiting.register(listening, select.POLLIN)
    return bool(waiting.poll(0))


@contextmanager
def _named(place: str, setting: str, host_setting: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotStart(
            f"cannot listen on {place} ({error.strerror or error}):"
            f" set {setting} or {host_setting}, or stop what holds the port"
        ) from error


def allow_open_files() -> None:
    """Raise the soft limit: each connection is a descriptor and so is each body; the usual 1024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
