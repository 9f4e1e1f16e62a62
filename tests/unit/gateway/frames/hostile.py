"""What somebody would try who runs code of theirs in a frame worker: the first word of the file is the deed.

Every deed raises OSError when it is stopped; one that comes to its end has done what it was to do. Raw system calls go
through libc's `syscall`, as an exploit's would: nothing of Python stands between them and the kernel.
"""

import ctypes
import errno
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgpack
import pyseccomp

from gateway.frames import worker
from gateway.frames.frame import Frame, FrameSet, Unreadable, UnreadableReason
from gateway.frames.settings import FrameSettings

HOSTILE = "tests.unit.gateway.frames.hostile:extract"

_JOBS = 3  # the descriptor of a worker's job socket
_AT_FDCWD = -100
_X32 = 0x4000_0000
_PAGE = 4096

# Calls that read, start, signal, map or reconfigure something outside the worker, with arguments that make sense where
# it matters: a kernel that let them through would answer something else than EPERM.
CALLS: dict[str, tuple[int, ...]] = {
    "openat": (_AT_FDCWD, 0, os.O_RDONLY, 0),
    "openat2": (_AT_FDCWD, 0, 0, 24),
    "open_by_handle_at": (_AT_FDCWD, 0, 0),
    "name_to_handle_at": (_AT_FDCWD, 0, 0, 0, 0),
    "newfstatat": (_AT_FDCWD, 0, 0, 0),
    "statx": (_AT_FDCWD, 0, 0, 0, 0),
    "faccessat2": (_AT_FDCWD, 0, 0, 0),
    "readlinkat": (_AT_FDCWD, 0, 0, 0),
    "unlinkat": (_AT_FDCWD, 0, 0),
    "renameat2": (_AT_FDCWD, 0, _AT_FDCWD, 0, 0),
    "linkat": (_AT_FDCWD, 0, _AT_FDCWD, 0, 0),
    "symlinkat": (0, _AT_FDCWD, 0),
    "mkdirat": (_AT_FDCWD, 0, 0),
    "mknodat": (_AT_FDCWD, 0, 0, 0),
    "fchmod": (_JOBS, 0),
    "fchown": (_JOBS, 0, 0),
    "chroot": (0,),
    "fchdir": (0,),
    "getdents64": (0, 0, 0),
    "inotify_init1": (0,),
    "fanotify_init": (0, 0),
    "dup": (_JOBS,),
    "fcntl": (_JOBS, 0, 0),
    "ioctl": (_JOBS, 0x5421, 0),
    "pipe2": (0, 0),
    "epoll_create1": (0,),
    "eventfd2": (0, 0),
    "memfd_create": (0, 0),
    "memfd_secret": (0,),
    "bind": (_JOBS, 0, 0),
    "connect": (_JOBS, 0, 0),
    "listen": (_JOBS, 1),
    "accept4": (_JOBS, 0, 0, 0),
    "setsockopt": (_JOBS, 1, 2, 0, 0),
    "clone": (0, 0, 0, 0, 0),
    "vfork": (),
    "execveat": (_AT_FDCWD, 0, 0, 0, 0),
    "ptrace": (16, 1, 0, 0),
    "process_vm_readv": (1, 0, 0, 0, 0, 0),
    "process_vm_writev": (1, 0, 0, 0, 0, 0),
    "process_madvise": (_JOBS, 0, 0, 0, 0),
    "pidfd_open": (1, 0),
    "pidfd_getfd": (_JOBS, 0, 0),
    "pidfd_send_signal": (_JOBS, 0, 0, 0),
    "kcmp": (1, 1, 0, 0, 0),
    "tkill": (1, 0),
    "rt_sigqueueinfo": (1, 0, 0),
    "prctl": (1, 0, 0, 0, 0),
    "setrlimit": (9, 0),
    "setpriority": (0, 0, -20),
    "sched_setaffinity": (1, 8, 0),
    "setuid": (0,),
    "setgid": (0,),
    "capset": (0, 0),
    "unshare": (0x1000_0000,),
    "setns": (_JOBS, 0),
    "mount": (0, 0, 0, 0, 0),
    "umount2": (0, 0),
    "pivot_root": (0, 0),
    "fsopen": (0, 0),
    "shmget": (0, _PAGE, 0o1600),
    "shmat": (0, 0, 0),
    "msgget": (0, 0o1600),
    "semget": (0, 1, 0o1600),
    "mq_open": (0, 0, 0, 0),
    "io_uring_setup": (8, 0),
    "io_setup": (8, 0),
    "bpf": (0, 0, 0),
    "perf_event_open": (0, 0, -1, -1, 0),
    "userfaultfd": (0,),
    "keyctl": (0, 0, 0, 0, 0),
    "add_key": (0, 0, 0, 0, 0),
    "request_key": (0, 0, 0, 0),
    "seccomp": (1, 0, 0),
    "landlock_create_ruleset": (0, 0, 0),
    "personality": (0xFFFF_FFFF,),
    "mlockall": (1,),
    "remap_file_pages": (0, 0, 0, 0, 0),
    "pkey_alloc": (0, 0),
    "splice": (0, 0, _JOBS, 0, 1, 0),
    "sendfile": (_JOBS, 0, 0, 1),
    "copy_file_range": (0, 0, _JOBS, 0, 1, 0),
    "fallocate": (0, 0, 0, _PAGE),
    "sync": (),
    "reboot": (0, 0, 0, 0),
    "swapon": (0, 0),
    "init_module": (0, 0, 0),
    "kexec_load": (0, 0, 0, 0),
    "settimeofday": (0, 0),
    "syslog": (10, 0, 0),
    "quotactl": (0, 0, 0, 0),
}

# Before the worker is shut in: resolving names later would be refused, too.
_RESOLVED = {name: pyseccomp.resolve_syscall(pyseccomp.system_arch(), name) for name in CALLS}
NUMBERS = {name: number for name, number in _RESOLVED.items() if number >= 0}  # others have no such call here
_PRLIMIT = pyseccomp.resolve_syscall(pyseccomp.system_arch(), "prlimit64")
_LIBC = ctypes.CDLL(None, use_errno=True)


def extract(data: bytes, settings: FrameSettings) -> FrameSet:
    """Does what `data` says. Stopped: ``unsupported: stopped <errno>``; done: frames of the type ``test/<deed>``."""
    word, _, argument = data.decode().partition(" ")
    if word in _DEEDS:
        try:
            _DEEDS[word](argument)
        except OSError as error:
            raise Unreadable(UnreadableReason.UNSUPPORTED, f"stopped {error.errno}") from None
    return FrameSet(f"test/{word}", 1, 1, 0, (_frame(os.getpid()),))


def _frame(at_ms: int) -> Frame:
    return Frame(b"\xff\xd8\xff\xd9", 1, 1, at_ms, bytes(32), 0, bytes(224))


def _call(number: int, *arguments: int) -> int:
    ctypes.set_errno(0)
    result = int(_LIBC.syscall(ctypes.c_long(number), *(ctypes.c_long(each) for each in arguments)))
    if result == -1:
        raise OSError(ctypes.get_errno(), "stopped")
    return result


def _raw(name: str) -> None:
    _call(NUMBERS[name], *CALLS[name])


def _other_abi(name: str) -> None:
    _call(NUMBERS[name] | _X32, *CALLS[name])


def _bomb(_argument: str) -> None:
    """Fork until it is refused: each child would do so, too."""
    while os.fork() >= 0:
        pass


def _speak(kind: str) -> None:
    with socket.socket(getattr(socket, kind), socket.SOCK_DGRAM):
        pass


def _knock(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.connect(path.replace("@", "\0"))


def _execute(path: str) -> None:
    os.execv(path, [path])


def _become_code(_argument: str) -> None:
    """Make memory executable after it was written, as an exploit's second stage does."""
    held = ctypes.create_string_buffer(3 * _PAGE)
    start = (ctypes.addressof(held) + _PAGE) & ~(_PAGE - 1)
    if _LIBC.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(_PAGE), 7) != 0:
        raise OSError(ctypes.get_errno(), "stopped")


def _raise_limit(name: str) -> None:
    unlimited = ctypes.create_string_buffer(b"\xff" * 16)
    _call(_PRLIMIT, 0, getattr(resource, name), ctypes.addressof(unlimited), 0)


def _map_memory(_argument: str) -> None:
    """All address space there is, past Python's allocator."""
    _LIBC.mmap.restype = ctypes.c_void_p
    for _ in range(1 << 16):
        got = _LIBC.mmap(None, ctypes.c_size_t(64 << 20), 3, 0x22, -1, ctypes.c_long(0))
        if got in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "stopped")


def _count_descriptors(_argument: str) -> None:
    """Look for a descriptor that the worker has no use for: a lock, a Kafka connection, somebody's upload."""
    held = []
    for descriptor in range(1 << 16):
        try:
            os.lseek(descriptor, 0, os.SEEK_CUR)
        except OSError as error:
            if error.errno == errno.EBADF:
                continue
        held.append(descriptor)
    if held == list(range(5)):  # three times /dev/null, the job socket, its own statm
        raise OSError(errno.EPERM, "stopped")


def _fall(_argument: str) -> None:
    """Recurse in C past the end of the stack."""
    sys.setrecursionlimit(1 << 30)

    def deeper() -> object:
        return max([0], key=lambda _: deeper())

    deeper()


def _deaf(_argument: str) -> NoReturn:
    """Never end, and take no signal that can be refused."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        pass


def _say(*answers: bytes) -> None:
    for answer in answers:
        os.write(_JOBS, struct.pack("<I", len(answer)) + answer)


def _job() -> int:
    """The number of the job that we run in, out of the worker's own variables."""
    frame = sys._getframe()
    while frame.f_code is not worker.serve.__code__:
        assert frame.f_back is not None
        frame = frame.f_back
    number: int = frame.f_locals["job"]
    return number


_FRAME = [b"\xff\xd8\xff\xd9", 1, 1, 0, bytes(32), 0, bytes(224)]


def _good() -> dict[str, object]:
    return {"job": _job(), "rss": 1, "frames": ["test/lie", 1, 1, 0, [_FRAME]]}


def _nonsense(kind: str) -> None:
    """Answer for ourselves on the job socket, and not as agreed."""
    good = _good()
    frame = _FRAME
    lies: dict[str, Callable[[], None]] = {
        "endless": lambda: os.write(_JOBS, b"\xff" * 65_536) and None,
        "garbage": lambda: _say(b"\xc1" * 40),
        "deep": lambda: _say(b"\x91" * 4000 + b"\x90"),
        "wide": lambda: _say(b"\xdf\xff\xff\xff\xff" + b"\x90" * 4000),
        "list": lambda: _say(b"\x90"),
        "empty": lambda: _say(msgpack.packb({"job": _job()})),
        "infinite": lambda: _say(msgpack.packb(good | {"rss": float("inf")})),
        "reason": lambda: _say(msgpack.packb({"job": _job(), "rss": 1, "reason": ["x"], "detail": ""})),
        "type": lambda: _say(msgpack.packb(good | {"frames": ["image/" + "x" * 5000, 1, 1, 0, [frame]]})),
        "lines": lambda: _say(msgpack.packb(good | {"frames": ["image/x\r\nSet-Cookie: y", 1, 1, 0, [frame]]})),
        "no-jpeg": lambda: _say(msgpack.packb(good | {"frames": ["image/x", 1, 1, 0, [[b"MZ", *frame[1:]]]]})),
        "crowd": lambda: _say(msgpack.packb(good | {"frames": ["image/x", 1, 1, 0, [frame] * 9]})),
        "other-job": lambda: _say(msgpack.packb(good | {"job": _job() ^ 1})),
        "no-job": lambda: _say(msgpack.packb({name: good[name] for name in ("rss", "frames")})),
        "twice": lambda: _say(msgpack.packb(good), msgpack.packb(good)),
        "ahead": _answer_ahead,
    }
    lies[kind]()
    while True:
        time.sleep(1)


def _answer_ahead() -> None:
    """Answer this job, wait for the next, and say the same of that without a look at it."""
    answer = msgpack.packb(_good())
    _say(answer)
    select.select([_JOBS], [], [])
    _say(answer)


_DEEDS: dict[str, Callable[[str], object]] = {
    "raw": _raw,
    "abi": _other_abi,
    "read": lambda path: Path(path).read_bytes(),
    "list": lambda path: next(Path(path).iterdir()),
    "exists": lambda path: Path(path).stat(),
    "write": lambda path: Path(path).write_bytes(b"x"),
    "unlink": lambda path: Path(path).unlink(),
    "speak": _speak,
    "knock": _knock,
    "execute": _execute,
    "bomb": _bomb,
    "kill": lambda pid: os.kill(int(pid), signal.SIGKILL),
    "code": _become_code,
    "raise": _raise_limit,
    "map": _map_memory,
    "descriptors": _count_descriptors,
    "fall": _fall,
    "deaf": _deaf,
    "lie": _nonsense,
}

STOPPED = f"stopped {errno.EPERM}"
