"""Child processes: started, watched, restarted when they die, stopped in order, and never left behind.

Each child leads a session of its own, so that Ctrl-C in the terminal reaches it only through us, and so that its own
children can be found and ended with it. On Linux a child dies with the thread that started it (see `tether`).
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog

from fediwarden.exits import START_AGAIN

log = structlog.get_logger("fediwarden.children")

EX_CONFIG = 78
"""sysexits.h: the configuration is wrong. Starting such a child again would change nothing."""

_TETHER = Path(__file__).with_name("tether.py")
_AFTER_KILL_S = 10.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to run one child.

    `environment` is added to ours; `output` takes stdout and stderr (made anew at each start), None leaves them ours;
    `stop_within_s` is how long it may take to leave after SIGTERM before it is killed; `explain` is asked for a
    few words (the end of its log) when it has died. `niceness` is how far it stands back for the others when there is
    not processor enough for all (nice(2)). The rest goes on without one that is not `essential`: as it is configured
    wrongly, it is tried again now and then, for what is wrong may lie elsewhere (the rights in a database).
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    output: Path | None = None
    stop_within_s: float = 20.0
    explain: Callable[[], str] | None = None
    niceness: int = 0
    essential: bool = True


class Child:
    """One running process of a `ChildSpec`. Start it from a thread that outlives it: it dies with that thread."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        argv = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), str(spec.niceness), *spec.argv]
        environment = {**os.environ, **spec.environment}
        if spec.output is None:
            self._process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        else:
            with spec.output.open("wb") as output:
                self._process = subprocess.Popen(
                    argv,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        self.pid = self._process.pid
        self._ended = threading.Event()
        self._on_end: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name=f"wait-{spec.name}", daemon=True).start()

    def _watch(self) -> None:
        # Seen but not yet reaped, the process still holds its id: the group is certainly its own when it is swept.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self.kill()
        self._process.wait()
        with self._lock:
            self._ended.set()
            listeners = list(self._on_end)
        for listener in listeners:
            listener()

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return not self._ended.is_set()

    @property
    def exit_code(self) -> int | None:
        """Its exit status, minus the signal's number when one ended it; None while it runs."""
        return self._process.returncode if self._ended.is_set() else None

    def terminate(self) -> None:
        """Ask the process (not its children, which are its own to stop) to leave."""
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the process and all it has started, at once."""
        if self.running:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until it has ended; False when it has not within `timeout_s`."""
        return self._ended.wait(timeout_s)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        loop = asyncio.get_running_loop()
        seen = asyncio.Event()

        def notify() -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(seen.set)

        with self._lock:
            self._on_end.append(notify)
            if self._ended.is_set():
                seen.set()
        await seen.wait()
        assert self.exit_code is not None
        return self.exit_code

    def stop(self) -> None:
        """Terminate, wait `stop_within_s`, kill. Blocks."""
        self.terminate()
        if not self.wait(self.spec.stop_within_s):
            log.warning("child_killed", child=self.spec.name, pid=self.pid, after_s=self.spec.stop_within_s)
            self.kill()
            self.wait(_AFTER_KILL_S)


def describe_exit(code: int) -> str:
    """An exit code in words; programs that catch a signal and leave, as Java does, exit with 128 and its number."""
    if code < 0:
        return f"ended by {_signal_name(-code)}"
    if code > 128:
        return f"exit code {code} ({_signal_name(code - 128)})"
    return f"exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a restart: from `first_s` doubling to `most_s`, afresh after `reset_after_s` up; and
    `misconfigured_s` for a child that is configured wrongly, and that the rest can do without."""

    first_s: float = 0.5
    most_s: float = 30.0
    reset_after_s: float = 60.0
    misconfigured_s: float = 60.0


class ChildMisconfigured(Exception):
    """A child has ended with `EX_CONFIG`. Its own output says what is wrong."""

    exit_code = EX_CONFIG


class Stopped(Exception):
    """The supervisor was told to stop."""


class Supervisor:
    """Keeps children running until it is told to stop, or until one says that its configuration is wrong.

    Use it in the main thread, inside a running loop::

        async with Supervisor() as children, handled signals inside:
            children.start(first)
            children.start(second, third)   # these two are stopped together, before the first
            await children.run()
    """

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._tiers: list[list[asyncio.Task[None]]] = []
        self._running: dict[str, Child] = {}
        self._exits: dict[str, int] = {}
        self._specs: dict[asyncio.Task[None], ChildSpec] = {}
        self._stop = asyncio.Event()
        self._killed = False
        self._failure: ChildMisconfigured | None = None

    async def __aenter__(self) -> "Supervisor":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Inside: SIGINT, SIGTERM and SIGHUP ask to stop, and the second one kills."""
        loop = asyncio.get_running_loop()
        taken = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in taken:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in taken:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            log.warning("killing_children", signal=number.name)
            self.kill()
        else:
            log.info("stopping", signal=number.name)
            self.request_stop()

    def request_stop(self) -> None:
        """Let `run` and `until` return; no child is started from now on."""
        self._stop.set()

    def kill(self) -> None:
        """End every child at once."""
        self._killed = True
        self._stop.set()
        for child in self._running.values():
            child.kill()

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop."""
        return self._stop.is_set()

    def exits(self, name: str) -> int:
        """How many times this child has ended by itself."""
        return self._exits.get(name, 0)

    def running(self) -> dict[str, int]:
        """Name and process id of every child that runs now."""
        return {name: child.pid for name, child in self._running.items() if child.running}

    def start(self, *specs: ChildSpec) -> None:
        """Start children that belong together: they are stopped together, and before all that were started earlier."""
        tier: list[asyncio.Task[None]] = []
        self._tiers.append(tier)
        for spec in specs:
            child = self._spawn(spec)
            task = asyncio.create_task(self._keep_running(spec, child), name=spec.name)
            self._specs[task] = spec
            tier.append(task)

    def _spawn(self, spec: ChildSpec) -> Child:
        child = Child(spec)
        self._running[spec.name] = child
        log.info("child_started", child=spec.name, pid=child.pid)
        return child

    async def _keep_running(self, spec: ChildSpec, child: Child) -> None:
        clock = asyncio.get_running_loop().time
        delay = self._backoff.first_s
        while True:
            started = clock()
            code = await child.ended()
            if self._stop.is_set():
                log.info("child_stopped", child=spec.name, how=describe_exit(code))
                return
            if code == START_AGAIN:
                log.info("child_starts_again", child=spec.name, pid=child.pid)
                restarted = await self._restart(spec, 0.0)
                if restarted is None:
                    return
                child = restarted
                delay = self._backoff.first_s
                continue
            self._exits[spec.name] = self.exits(spec.name) + 1
            why = {"explained": spec.explain()} if spec.explain else {}
            if code == EX_CONFIG:
                log.error("child_misconfigured", child=spec.name, pid=child.pid, **why)
                if not spec.essential:
                    restarted = await self._restart(spec, self._backoff.misconfigured_s)
                    if restarted is None:
                        return
                    child = restarted
                    continue
                self._failure = ChildMisconfigured(
                    f"{spec.name} cannot run as it is configured; its own lines above say why."
                )
                self._stop.set()
                return
            if clock() - started >= self._backoff.reset_after_s:
                delay = self._backoff.first_s
            log.warning(
                "child_died",
                child=spec.name,
                pid=child.pid,
                how=describe_exit(code),
                after_s=round(clock() - started, 1),
                restart_in_s=delay,
                **why,
            )
            restarted = await self._restart(spec, delay)
            if restarted is None:
                return
            child = restarted
            delay = min(delay * 2, self._backoff.most_s)

    async def _restart(self, spec: ChildSpec, delay: float) -> Child | None:
        """A new process after `delay` seconds; None when told to stop before that."""
        while not await self._stopped_within(delay):
            try:
                return self._spawn(spec)
            except OSError as fault:  # no memory, or no disk for its output
                delay = min(delay * 2, self._backoff.most_s)
                log.warning("child_not_started", child=spec.name, why=str(fault), retry_in_s=delay)
        return None

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    async def until(self, work: Awaitable[Result]) -> Result:
        """The result of `work`. Raises `Stopped` or `ChildMisconfigured` when that comes first; `work` is cancelled."""
        task = asyncio.ensure_future(work)
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self._failure or Stopped("told to stop")
        finally:
            for pending in (task, stop):
                pending.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    async def run(self) -> None:
        """Return when told to stop. Raises `ChildMisconfigured`."""
        await self._stop.wait()
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """Stop all children, those started last first; each has its `stop_within_s`, then it is killed."""
        self._stop.set()
        for tier in reversed(self._tiers):
            await asyncio.gather(*(self._stop_one(task) for task in tier))
        self._tiers.clear()

    async def _stop_one(self, task: asyncio.Task[None]) -> None:
        spec = self._specs[task]
        child = self._running[spec.name]
        if self._killed:
            child.kill()
        else:
            child.terminate()
        _, pending = await asyncio.wait((task,), timeout=spec.stop_within_s)
        if pending:
            log.warning("child_killed", child=spec.name, pid=child.pid, after_s=spec.stop_within_s)
            child.kill()
            await asyncio.wait((task,), timeout=_AFTER_KILL_S)
