"""Run as a script: ties a program to the process that starts it, then becomes that program.

``python tether.py PARENT_PID NICENESS PROGRAM ARGUMENT...``: on Linux the kernel kills the program when the parent is
gone, even when the parent was itself killed and could not clean up (prctl(2), PR_SET_PDEATHSIG; it survives execve).
A program of its own, and not a function between fork and exec, because forking Python with threads is unsafe.
"""

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent: int, niceness: int, argv: list[str]) -> None:
    """Tie this process to `parent` and replace it by `argv`. Exits 127 when the program cannot be run."""
    if niceness:
        os.nice(niceness)
        # Where the scheduler groups by session (sched(7), autogroup), niceness alone counts within a session only.
        with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as group:  # noqa: PTH123  (imports little)
            group.write(str(niceness))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the tie was made
            os._exit(1)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - the list is the caller's own
    except OSError as fault:
        sys.stderr.write(f"cannot run {argv[0]}: {fault.strerror}\n")
        os._exit(127)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
