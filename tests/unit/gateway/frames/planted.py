"""An extractor that misbehaves as its input asks: the first word of the file is what to do."""

import ctypes
import mmap
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gateway.frames.frame import Frame, FrameSet, Unreadable, UnreadableReason
from gateway.frames.settings import FrameSettings

PLANTED = "tests.unit.gateway.frames.planted:extract"


def extract(data: bytes, settings: FrameSettings) -> FrameSet:
    """Does what `data` says; a fault that the sandbox stops is reported as ``unsupported: stopped``."""
    word, _, argument = data.decode().partition(" ")
    if word == "sleep":
        time.sleep(float(argument))
    elif word in _FAULTS:
        try:
            _FAULTS[word](argument)
        except OSError as error:
            raise Unreadable(UnreadableReason.UNSUPPORTED, f"stopped {error.errno}") from None
    return FrameSet(f"test/{word}", 1, 1, 0, (Frame(b"\xff\xd8\xff\xd9", 1, 1, os.getpid(), bytes(32), 0, bytes(224)),))


def _crash(_argument: str) -> None:
    ctypes.string_at(0)


def _hang(_argument: str) -> None:
    while True:
        pass


def _eat(_argument: str) -> None:
    held = []
    while True:
        held.append(bytearray(64 << 20))


def _thread(_argument: str) -> None:
    try:
        threading.Thread(target=int).start()
    except RuntimeError as error:
        raise PermissionError(1, str(error)) from None


def _execute_memory(_argument: str) -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def _open_connection(_argument: str) -> None:
    with socket.socket() as opened:
        opened.connect(("127.0.0.1", 9))


_FAULTS: dict[str, Callable[[str], object]] = {
    "crash": _crash,
    "abort": lambda _: os.abort(),
    "exit": lambda _: os._exit(3),
    "hang": _hang,
    "eat": _eat,
    "read": lambda path: Path(path).read_bytes(),
    "write": lambda path: Path(path).write_bytes(b"x"),
    "list": lambda path: list(Path(path).iterdir()),
    "connect": _open_connection,
    "socketpair": lambda _: socket.socketpair(),
    "fork": lambda _: os.fork(),
    "thread": _thread,
    "exec": lambda _: os.execv("/bin/true", ["true"]),
    "kill": lambda pid: os.kill(int(pid), 0),
    "memfd": lambda _: os.memfd_create("hidden"),
    "code": _execute_memory,
}
