"""Hostile code in a real worker: what it tries is stopped, the secrets stay where they are, and the pool goes on."""

import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gateway.frames.frame import FrameSet, Unreadable, UnreadableReason
from gateway.frames.pool import FramePool
from gateway.frames.settings import FrameSettings
from tests.unit.gateway.frames.hostile import HOSTILE, NUMBERS, STOPPED

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")


class Attacked:
    """One pool of two hostile workers, on a loop of its own."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.pool = FramePool(FrameSettings(workers=2, wall_s=20.0, memory_mb=400), extractor=HOSTILE)
        self._runner.run(self.pool.start())

    def give(self, deed: str) -> FrameSet | Unreadable:
        return self._runner.run(self._give(deed.encode()))

    def goes_on(self) -> bool:
        """Whether every worker is there and takes jobs again."""
        return self._runner.run(self._go_on())

    async def _give(self, data: bytes) -> FrameSet | Unreadable:
        fd = os.memfd_create("upload")
        try:
            os.write(fd, data)
            return await self.pool.extract(fd, len(data))
        except Unreadable as refused:
            return refused
        finally:
            os.close(fd)

    async def _go_on(self) -> bool:
        async with asyncio.timeout(30):
            while self.pool.busy or len(self.pool._workers) < 2:
                await asyncio.sleep(0.01)
            answers = await asyncio.gather(*(self._give(b"fine") for _ in range(4)))
        return all(isinstance(answer, FrameSet) and answer.media_type == "test/fine" for answer in answers)

    def processes(self) -> list[psutil.Process]:
        return psutil.Process().children(recursive=True)

    def close(self) -> None:
        self._runner.run(self.pool.stop())
        self._runner.close()


@pytest.fixture(scope="module")
def attacked() -> Iterator[Attacked]:
    attacked = Attacked()
    yield attacked
    attacked.close()


def stopped(attacked: Attacked, deed: str) -> None:
    outcome = attacked.give(deed)
    assert isinstance(outcome, Unreadable), f"{deed}: nothing stopped it"
    assert (outcome.reason, outcome.detail) == (UnreadableReason.UNSUPPORTED, STOPPED), f"{deed}: {outcome}"


def test_no_file_is_read_written_listed_or_known_to_exist(attacked: Attacked, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": "secret"}))
    shared = Path("/dev/shm") / f"fediwarden-test-{os.getpid()}"
    shared.write_bytes(b"somebody's pixels")
    try:
        for deed in (
            "read /etc/passwd",
            f"read {keys}",
            f"read /proc/{os.getpid()}/environ",
            f"read /proc/{os.getpid()}/mem",
            "read /proc/self/environ",
            "read /proc/self/maps",
            f"read {shared}",
            "list /",
            "list /dev/shm",
            f"list /proc/{os.getpid()}/fd",
            f"exists {keys}",
            f"write {tmp_path / 'filled'}",
            f"write {shared}",
            f"unlink {keys}",
            "descriptors",
        ):
            stopped(attacked, deed)
        assert shared.read_bytes() == b"somebody's pixels"
    finally:
        shared.unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]
    assert attacked.goes_on()


def test_nobody_is_spoken_to(attacked: Attacked) -> None:
    for deed in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET"):
        stopped(attacked, f"speak {deed}")
    for path in ("/run/docker.sock", "/run/systemd/private", "@fediwarden"):
        stopped(attacked, f"knock {path}")


def test_no_program_no_code_and_no_process_is_started(attacked: Attacked) -> None:
    before = {process.pid for process in attacked.processes()}
    for deed in ("execute /bin/true", "bomb", "code"):
        stopped(attacked, deed)
    assert {process.pid for process in attacked.processes()} == before


def test_nobody_else_is_signalled(attacked: Attacked) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        stopped(attacked, f"kill {bystander.pid}")
        stopped(attacked, f"kill {os.getppid()}")
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.parametrize("call", sorted(NUMBERS))
def test_a_raw_system_call_that_no_decoder_needs_is_refused(call: str, attacked: Attacked) -> None:
    stopped(attacked, f"raw {call}")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is a second way to number x86-64's calls")
def test_a_call_by_another_numbering_kills_the_worker_that_makes_it(attacked: Attacked) -> None:
    outcome = attacked.give("abi openat")
    assert isinstance(outcome, Unreadable)
    assert outcome.reason in (UnreadableReason.DECODER_DIED, UnreadableReason.UNSUPPORTED), outcome
    assert attacked.goes_on()


def test_limits_cannot_be_raised(attacked: Attacked) -> None:
    for limit in ("RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_NPROC", "RLIMIT_NOFILE", "RLIMIT_CORE"):
        stopped(attacked, f"raise {limit}")


def test_memory_ends_where_the_limit_is(attacked: Attacked) -> None:
    outcome = attacked.give("map")
    assert isinstance(outcome, Unreadable)
    assert outcome.detail == "stopped 12"  # ENOMEM
    assert max(process.memory_info().rss for process in attacked.processes()) < 400 << 20
    assert attacked.goes_on()


def test_a_stack_that_runs_over_ends_one_worker(attacked: Attacked) -> None:
    outcome = attacked.give("fall")
    assert isinstance(outcome, Unreadable)
    assert attacked.goes_on()


def test_a_worker_that_takes_no_signal_is_ended_by_the_clock() -> None:
    async def work() -> None:
        frames = FramePool(FrameSettings(workers=1, wall_s=0.3), extractor=HOSTILE)
        await frames.start()
        try:
            fd = os.memfd_create("upload")
            os.write(fd, b"deaf")
            with pytest.raises(Unreadable) as raised:
                await frames.extract(fd, 4)
            os.close(fd)
            assert raised.value.reason is UnreadableReason.TOO_SLOW
        finally:
            await frames.stop()

    asyncio.run(work())


@pytest.mark.parametrize(
    "lie",
    [
        "endless",
        "garbage",
        "deep",
        "wide",
        "list",
        "empty",
        "infinite",
        "reason",
        "type",
        "lines",
        "no-jpeg",
        "crowd",
        "other-job",
        "no-job",
        "twice",
        "ahead",
    ],
)
def test_a_worker_that_does_not_answer_as_agreed_is_replaced(lie: str, attacked: Attacked) -> None:
    outcome = attacked.give(f"lie {lie}")
    # Of two that come one by one, the first is an answer; nobody else's image gets the second.
    if lie not in ("twice", "ahead") or isinstance(outcome, Unreadable):
        assert isinstance(outcome, Unreadable)
        assert outcome.reason is UnreadableReason.DECODER_DIED
        assert len(outcome.detail) < 200
    assert attacked.goes_on()
