"""Shuts a worker process in: what it may use up, and what it may ask the kernel for.

Four parts, each of which may be missing on a machine without taking the others down: resource limits, no new
privileges, Landlock (no file can be opened, no TCP, no signal to others) and seccomp (an allow-list of system calls:
no socket, no process, no thread, no file opened for anything, no memory made executable). Everything a decoder
needs must be loaded before.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 1, 38, 4  # linux/prctl.h

# What reading bytes, computing, allocating memory and answering on an open socket takes, and no more. Calls that
# only ask about the process itself are here too, for libraries make them now and then.
# fmt: off
_ALLOWED = (
    "read", "readv", "pread64", "preadv", "write", "writev", "recvmsg", "recvfrom", "sendmsg", "sendto",
    "close", "lseek", "fstat", "ppoll", "poll", "select", "pselect6", "brk", "munmap", "mremap", "madvise",
    "mincore", "membarrier", "futex", "futex_waitv", "set_robust_list", "get_robust_list", "rseq",
    "sched_yield", "sched_getaffinity", "getcpu", "nanosleep", "clock_nanosleep", "clock_gettime",
    "clock_getres", "gettimeofday", "time", "getrandom", "getcwd", "getpid", "gettid", "getppid", "getuid",
    "geteuid", "getgid", "getegid", "getrusage", "times", "uname", "sysinfo", "getpriority",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "sigaltstack", "restart_syscall",
    "exit", "exit_group",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Protections:
    """Which parts of the sandbox are on; `missing` says in words why a part is not."""

    limits: bool
    no_new_privileges: bool
    landlock: bool
    seccomp: bool
    missing: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, bool]:
        """The four parts by name."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, bool)}

    @property
    def complete(self) -> bool:
        """Whether every part is on."""
        return all(self.as_dict().values())


def preload() -> None:
    """Loads what `close_in` needs. Where a package is missing, its part will be, too."""
    with contextlib.suppress(ImportError, OSError):
        import landlockpy

        # It looks for libc at its first call, by running ldconfig. `close_in` lets nobody but root do that.
        landlockpy.supported()
    # It raises RuntimeError without libseccomp.so.2.
    with contextlib.suppress(ImportError, OSError, RuntimeError):
        import pyseccomp  # noqa: F401


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when `parent` (a process id) dies, and exits if it is dead already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def close_in(memory_mb: int, keep: int) -> Protections:
    """Applies every part to the calling process, for good; `keep` is how many descriptors it may hold at once.

    Must be called while the process has one thread. Raises nothing: what cannot be had is named in the result.
    """
    missing: list[str] = []
    limits = _attempt("limits", lambda: _limit(memory_mb, keep), missing)
    privileges = _attempt("no_new_privileges", lambda: _prctl(_PR_SET_NO_NEW_PRIVS, 1), missing)
    landlock = _attempt("landlock", _close_files, missing)
    seccomp = _attempt("seccomp", _close_kernel, missing)
    return Protections(limits, privileges, landlock, seccomp, tuple(missing))


def _attempt(name: str, apply: Callable[[], None], missing: list[str]) -> bool:
    try:
        apply()
    except Exception as error:  # noqa: BLE001 - each part stands alone, and its absence is reported
        missing.append(f"{name}: {type(error).__name__}: {error}"[:200])
        return False
    return True


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def _limit(memory_mb: int, keep: int) -> None:
    for what, amount in (
        (resource.RLIMIT_AS, memory_mb << 20),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, keep),
        (resource.RLIMIT_NPROC, 0),  # root is exempt from this one; seccomp is not
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(what, (amount, amount))
    _prctl(_PR_SET_DUMPABLE, 0)


def _close_files() -> None:
    import landlockpy

    if not landlockpy.supported():
        raise OSError(errno.ENOSYS, "the kernel has no Landlock, or it is off")
    scope = landlockpy.Scope.ABSTRACT_UNIX_SOCKET | landlockpy.Scope.SIGNAL
    with landlockpy.Ruleset(scoped=scope) as ruleset:
        ruleset.restrict()


def _close_kernel() -> None:
    import pyseccomp

    refuse = pyseccomp.ERRNO(errno.EPERM)
    kernel = pyseccomp.SyscallFilter(refuse)
    for name in _ALLOWED:
        kernel.add_rule(pyseccomp.ALLOW, name)
    # glibc turns to clone when clone3 is unknown, and clone is refused like all else.
    kernel.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    no_code = pyseccomp.Arg(2, pyseccomp.MASKED_EQ, mmap.PROT_EXEC, 0)
    for name in ("mmap", "mprotect"):
        kernel.add_rule(pyseccomp.ALLOW, name, no_code)
    # tgkill to itself is how abort() ends the process.
    kernel.add_rule(pyseccomp.ALLOW, "tgkill", pyseccomp.Arg(0, pyseccomp.EQ, os.getpid()))
    # Its own CPU limit, which each job moves on; nothing of another process.
    kernel.add_rule(
        pyseccomp.ALLOW,
        "prlimit64",
        pyseccomp.Arg(0, pyseccomp.EQ, 0),
        pyseccomp.Arg(1, pyseccomp.EQ, resource.RLIMIT_CPU),
    )
    kernel.load()
