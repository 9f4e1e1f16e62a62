"""The process that worker processes are forked from, with every decoder loaded: ``python -m gateway.frames.zygote``.

A new worker takes milliseconds this way, and carries nothing of the gateway's memory (keys, other people's pictures).
Control messages are JSON over a SEQPACKET socket, whose descriptor the one argument names. In: once
``{"settings": ..., "extractor": "module:name"}``, then ``{"fork": n}`` with the worker's end of a job socket
attached. Out: ``{"ready": true}`` or ``{"failed": "..."}``, ``{"forked": n, "pid": p}`` with a pidfd attached,
``{"exited": p, "status": s}``, where s is the exit code or minus the signal's number.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import selectors
import signal
import socket
import sys

from gateway.frames import sandbox, worker
from gateway.frames.frame import Unreadable
from gateway.frames.settings import FrameSettings

_JOBS = 3  # the descriptor of a worker's job socket
MESSAGE_BYTES = 65_536
"""The longest control message."""


def main() -> None:
    """Serves until the gateway's end of the control socket closes; then takes all workers along."""
    # Ctrl-C and a service manager's SIGTERM reach every process; the gateway drains and then ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        try:
            order = json.loads(control.recv(MESSAGE_BYTES))
            settings = FrameSettings.model_validate(order["settings"])
            module, _, name = order["extractor"].partition(":")
            extractor: worker.Extractor = getattr(importlib.import_module(module), name)
            sandbox.preload()
            warm_up(settings)
        except Exception as error:  # noqa: BLE001 - the process edge: the gateway reports it
            control.send(json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode())
            return
        gc.collect()
        gc.freeze()  # or each worker's first collection would copy every page it inherits
        control.send(b'{"ready": true}')
        _Nursery(control, settings, extractor).serve()


class _Nursery:
    """Forks workers on request and reports their ends."""

    def __init__(self, control: socket.socket, settings: FrameSettings, extractor: worker.Extractor) -> None:
        self._control = control
        self._settings = settings
        self._extractor = extractor
        self._children: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def serve(self) -> None:
        while True:
            for key, _events in self._selector.select():
                if key.fileobj is not self._control:
                    self._reap(key.fd)
                elif not self._obey():
                    self._end_all()
                    return

    def _end_all(self) -> None:
        for pidfd in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)

    def _obey(self) -> bool:
        try:
            message, descriptors, _flags, _address = socket.recv_fds(self._control, MESSAGE_BYTES, 1)
        except ConnectionResetError:  # the gateway is gone, and has not read our last word
            return False
        if not message:
            return False
        number = json.loads(message)["fork"]
        with socket.socket(fileno=descriptors[0]) as connection:
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                self._work(connection, parent)
        pidfd = os.pidfd_open(pid)
        self._children[pid] = pidfd
        self._selector.register(pidfd, selectors.EVENT_READ, pid)
        with contextlib.suppress(ConnectionError):
            socket.send_fds(self._control, [json.dumps({"forked": number, "pid": pid}).encode()], [pidfd])
        return True

    def _work(self, connection: socket.socket, parent: int) -> None:
        status = 70
        try:
            sandbox.die_with_parent(parent)
            # Nothing of the other processes may be within reach: one socket and the three standard streams.
            os.dup2(connection.detach(), _JOBS)
            self._control.detach()
            os.closerange(_JOBS + 1, os.sysconf("SC_OPEN_MAX"))
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            os.close(null)
            with socket.socket(fileno=_JOBS) as jobs:
                worker.serve(jobs, self._settings, self._extractor)
            status = 0
        except ConnectionError:
            status = 0
        finally:
            os._exit(status)

    def _reap(self, pidfd: int) -> None:
        pid = self._selector.unregister(pidfd).data
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(self._children.pop(pid))
        exited = result is not None and result.si_code == os.CLD_EXITED
        status = 0 if result is None else result.si_status if exited else -result.si_status
        with contextlib.suppress(ConnectionError):
            self._control.send(json.dumps({"exited": pid, "status": status}).encode())


def warm_up(settings: FrameSettings) -> None:
    """Imports every decoder's module and has each read a little picture, for libraries load parts on first use.

    What is not loaded now cannot be loaded later: workers may open no file. Leaves one thread.
    """
    from PIL import Image

    from gateway.frames.extract import extract

    importlib.import_module("PIL.MpoImagePlugin")  # a JPEG with more than one picture inside is opened by this one
    small = Image.new("RGB", (48, 32), (90, 120, 150))
    for form in ("JPEG", "PNG", "GIF", "WEBP", "AVIF"):
        out = io.BytesIO()
        options: dict[str, object] = {"save_all": True, "append_images": [small.rotate(90)], "duration": 100}
        small.save(out, form, **({"icc_profile": _profile()} if form == "JPEG" else options))
        with contextlib.suppress(Unreadable):
            extract(out.getvalue(), settings)
    for broken in (b"\xff\x0a" + bytes(80), b"\0\0\0\x10ftypisom\0\0\0\0", b"\x1a\x45\xdf\xa3\x80" + bytes(99)):
        with contextlib.suppress(Unreadable):
            extract(broken, settings)


def _profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


if __name__ == "__main__":
    main()
    sys.exit(0)
