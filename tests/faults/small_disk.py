"""Runs a program of ours that sees a tiny disk in place of one folder; everyone else sees the folder as it is.

    python -m tests.faults.small_disk FOLDER BYTES MODULE ARGUMENT...

The disk is a tmpfs in a mount namespace of the program's own (unshare(2); without root in a user namespace as well),
so that nothing is left to clean up. Exits `NOT_POSSIBLE` where the kernel does not allow it.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

NOT_POSSIBLE = 77
_CLONE_NEWNS = 0x00020000  # linux/sched.h
_CLONE_NEWUSER = 0x10000000
_MS_REC = 0x4000  # linux/mount.h
_MS_PRIVATE = 0x40000


def enter(folder: Path, size: int) -> None:
    """Mount the disk for this process and what it becomes. Raises OSError where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    user, group = os.getuid(), os.getgid()
    check(libc.unshare(_CLONE_NEWNS | (_CLONE_NEWUSER if user else 0)))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    check(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    check(libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, f"size={size},mode=0700".encode()))


def possible() -> bool:
    """Whether this machine allows it."""
    with tempfile.TemporaryDirectory() as folder:  # one that hides nothing: Python itself may be below /tmp
        tried = [sys.executable, "-m", "tests.faults.small_disk", folder, str(1 << 16), "platform"]
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0


def main(folder: str, size: str, *command: str) -> None:
    """Become the program."""
    try:
        enter(Path(folder), int(size))
    except OSError as error:
        sys.stderr.write(f"no small disk here: {error}\n")
        sys.exit(NOT_POSSIBLE)
    os.execv(sys.executable, [sys.executable, "-m", *command])


if __name__ == "__main__":
    main(*sys.argv[1:])
